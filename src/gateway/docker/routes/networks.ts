/** Routes below /networks. */
import { validate } from "../../../schema/api.ts";
import { networkMemberSchema } from "../../../schema/docker.ts";
import { isOn } from "../containers/list.ts";
import type { Engine } from "../engine.ts";
import { DockerError } from "../errors.ts";
import { bodyOf, done, reply } from "../http/route.ts";
import type { Call, Route } from "../http/route.ts";
import type { Network } from "../networks/networks.ts";

const networkOf = async ({ engine, params }: Call): Promise<Network> =>
  await engine.networks.find(params["id"] ?? "");

/** A network as clients see it. @param members those that run on it, in full */
function networkView(
  { builtIn: _builtIn, ...network }: Network,
  engine: Engine,
  members: boolean,
): object {
  const running = engine.containers.filter((one) => one.running && isOn(one, network.Id));
  const containers = running.map((one) => {
    const guest = one.vmView?.guestNetwork;
    const member = {
      Name: one.record.name,
      EndpointID: one.id,
      MacAddress: guest?.mac ?? "",
      IPv4Address: guest?.ipv4 ?? "",
      IPv6Address: guest?.ipv6 ?? "",
    };
    return [one.id, member];
  });
  return {
    ...network,
    Scope: "local",
    EnableIPv4: true,
    EnableIPv6: false,
    IPAM: { Driver: "default", Options: null, Config: [] },
    Ingress: false,
    ConfigFrom: { Network: "" },
    ConfigOnly: false,
    Containers: members ? (Object.fromEntries(containers) as object) : {},
  };
}

/** Put a container on a network, or take it off: while it does not run. */
async function member(call: Call, join: boolean): Promise<void> {
  const network = await networkOf(call);
  const body = validate(networkMemberSchema, await bodyOf(call), "network's member");
  const container = call.engine.find(body.Container);
  const { networks } = container.record;
  const on = Object.hasOwn(networks, network.Name);
  if (join && on) {
    throw new DockerError(
      403,
      `endpoint with name ${container.record.name} already exists in network ${network.Name}`,
    );
  }
  if (!join && !on) {
    if (body.Force === true) return done(call, 200);
    throw new DockerError(
      403,
      `container ${container.id} is not connected to network ${network.Name}`,
    );
  }
  if (container.active) {
    throw new DockerError(
      409,
      `a microVM's networks change while it is stopped: stop ${container.record.name} first`,
    );
  }
  if (join) {
    const aliases = [...(body.EndpointConfig?.Aliases ?? []), container.id.slice(0, 12)];
    networks[network.Name] = { aliases: [...new Set(aliases)], id: network.Id };
  } else delete networks[network.Name];
  await container.save();
  call.engine.events.emit("network", join ? "connect" : "disconnect", network.Id, {
    name: network.Name,
    type: network.Driver,
    container: container.id,
  });
  done(call, 200);
}

function usersOf(engine: Engine, network: Network): string[] {
  return engine.containers.filter((one) => isOn(one, network.Id)).map(({ id }) => id);
}

/** The table. */
export const networkRoutes: readonly Route[] = [
  {
    method: "GET",
    path: "/networks",
    says: "works",
    run: async (call) => {
      const filters = call.query.filters();
      const shown = (await call.engine.networks.list()).filter(
        (network) =>
          filters.allows("name", (wish) => network.Name.includes(wish)) &&
          filters.allows("id", (wish) => network.Id.startsWith(wish)) &&
          filters.allows("driver", (wish) => network.Driver === wish) &&
          filters.allows("scope", (wish) => wish === "local") &&
          filters.allows("type", (wish) => (wish === "builtin") === network.builtIn) &&
          filters.allows(
            "dangling",
            (wish) =>
              ["true", "1"].includes(wish) ===
              (!network.builtIn && usersOf(call.engine, network).length === 0),
          ) &&
          filters.allowsLabels(network.Labels),
      );
      reply(
        call,
        shown.map((network) => networkView(network, call.engine, false)),
      );
    },
  },
  {
    method: "POST",
    path: "/networks/create",
    says: "differs",
    note: "accepted and kept, but its containers do not reach each other yet, neither by name nor by address",
    run: async (call) => {
      const network = await call.engine.networks.create(await bodyOf(call));
      reply(call, { Id: network.Id, Warning: "" }, 201);
    },
  },
  {
    method: "POST",
    path: "/networks/prune",
    says: "works",
    run: async (call) => {
      const { engine, query } = call;
      const filters = query.filters();
      const removed: string[] = [];
      for (const network of await engine.networks.list()) {
        if (network.builtIn || !filters.allowsLabels(network.Labels)) continue;
        if (usersOf(engine, network).length > 0) continue;
        await engine.networks.remove(network);
        removed.push(network.Name);
      }
      reply(call, { NetworksDeleted: removed });
    },
  },
  {
    method: "GET",
    path: "/networks/:id",
    says: "works",
    run: async (call) => reply(call, networkView(await networkOf(call), call.engine, true)),
  },
  {
    method: "POST",
    path: "/networks/:id/connect",
    says: "differs",
    note: "while the container does not run",
    run: async (call) => await member(call, true),
  },
  {
    method: "POST",
    path: "/networks/:id/disconnect",
    says: "differs",
    note: "while the container does not run",
    run: async (call) => await member(call, false),
  },
  {
    method: "DELETE",
    path: "/networks/:id",
    says: "works",
    run: async (call) => {
      const network = await networkOf(call);
      const active = call.engine.containers.filter((one) => one.active && isOn(one, network.Id));
      if (active.length > 0) {
        throw new DockerError(
          403,
          `error while removing network: network ${network.Name} id ${network.Id} has active endpoints`,
        );
      }
      await call.engine.networks.remove(network);
      done(call);
    },
  },
];
