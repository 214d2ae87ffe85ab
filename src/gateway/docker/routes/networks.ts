/** Routes below /networks. */
import { networkMemberSchema } from "../../../schema/docker.ts";
import { placeIn } from "../containers/request/create.ts";
import { aliasesOf } from "../containers/life/guest.ts";
import { isOn } from "../containers/list.ts";
import type { Engine } from "../engine.ts";
import { DockerError } from "../errors.ts";
import { readBody } from "../http/bodies.ts";
import { untilOf } from "../http/moments.ts";
import { bodyOf, done, reply } from "../http/route.ts";
import type { Call, Route } from "../http/route.ts";
import type { Network } from "../networks/networks.ts";

const NETWORK_FILTERS = ["dangling", "driver", "id", "label", "name", "scope", "type"];

const networkOf = async ({ engine, params }: Call): Promise<Network> =>
  await engine.networks.find(params["id"] ?? "");

/** A network as clients see it. @param members those that run on it, in full */
function networkView(network: Network, engine: Engine, members: boolean): object {
  const { builtIn: _builtIn, subnet, ...shown } = network;
  const running = engine.containers.filter((one) => one.running && isOn(one, network.Id));
  const containers = running.map((one) => {
    const guest = one.vmView?.guestNetwork;
    const place = one.vmView?.networks.find((each) => each.network === network.Name);
    const address = place === undefined ? guest?.ipv4 : `${place.address}/${subnet.split("/")[1]}`;
    const member = {
      Name: one.record.name,
      EndpointID: one.id,
      MacAddress: guest?.mac ?? "",
      IPv4Address: address ?? "",
      IPv6Address: "",
    };
    return [one.id, member];
  });
  return {
    ...shown,
    Scope: "local",
    EnableIPv4: true,
    EnableIPv6: false,
    IPAM: { Driver: "default", Options: null, Config: subnet === "" ? [] : [{ Subnet: subnet }] },
    Ingress: false,
    ConfigFrom: { Network: "" },
    ConfigOnly: false,
    Containers: members ? (Object.fromEntries(containers) as object) : {},
  };
}

/** Take a container that does not run off a network that is no more. @returns whether it was on such a one */
async function leaveLost({ engine, params }: Call, ref: string): Promise<boolean> {
  const container = engine.find(ref);
  const { networks } = container.record;
  const { id: lost } = params;
  const on = Object.keys(networks).find((name) => name === lost || networks[name]?.id === lost);
  if (on === undefined || container.running) return false;
  delete networks[on];
  await container.save();
  return true;
}

/** Put a container on a network, or take it off; one that runs sees it at once. @throws 403, 404 */
async function member(call: Call, join: boolean): Promise<void> {
  const body = readBody(networkMemberSchema, await bodyOf(call), "network's member");
  let network: Network;
  try {
    network = await networkOf(call);
  } catch (error) {
    const isLost = error instanceof DockerError && error.status === 404;
    if (join || !isLost || !(await leaveLost(call, body.Container))) throw error;
    return done(call, 200);
  }
  const container = call.engine.find(body.Container);
  const { record } = container;
  const on = Object.hasOwn(record.networks, network.Name);
  if (join && on) {
    throw new DockerError(
      403,
      `endpoint with name ${record.name} already exists in network ${network.Name}`,
    );
  }
  if (!join && !on) {
    throw new DockerError(
      403,
      `container ${container.id} is not connected to network ${network.Name}`,
    );
  }
  if (network.Name === "host" || Object.hasOwn(record.networks, "none")) {
    throw new DockerError(403, "a container on the networks host or none is on no other");
  }
  const place = placeIn(network, body.EndpointConfig, container.id);
  if (record.vm !== undefined && !network.builtIn) {
    const { networks } = call.engine.vmsan;
    const { address } = place;
    if (!join) await networks.disconnect(network.Name, record.vm);
    else {
      await networks.connect(network.Name, record.vm, {
        aliases: aliasesOf(record, place.aliases),
        ...(address === undefined ? {} : { address }),
      });
    }
    await container.refresh();
  }
  if (join) record.networks[network.Name] = place;
  else delete record.networks[network.Name];
  await container.save();
  call.engine.events.emit("network", join ? "connect" : "disconnect", network.Id, {
    name: network.Name,
    type: network.Driver,
    container: container.id,
  });
  done(call, 200);
}

/** Remove one that nobody uses, or containers alone that do not run. @throws 403 */
async function removeNetwork(engine: Engine, network: Network): Promise<void> {
  const owned = new Set(engine.containers.map(({ record }) => record.vm));
  await engine.networks.remove(network, (vm) => owned.has(vm));
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
      const filters = call.query.filters().only(NETWORK_FILTERS);
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
    note: "a private network of vmsan (docs/network.md): IPv4, drivers other than bridge are refused; of IPAM there is `--subnet`",
    run: async (call) => {
      const { network, warning } = await call.engine.networks.create(await bodyOf(call));
      reply(call, { Id: network.Id, Warning: warning }, 201);
    },
  },
  {
    method: "POST",
    path: "/networks/prune",
    says: "works",
    run: async (call) => {
      const { engine, query } = call;
      const filters = query.filters().only(["label", "label!", "until"]);
      const until = untilOf(filters);
      const removed: string[] = [];
      for (const network of await engine.networks.list()) {
        if (network.builtIn || !filters.allowsLabels(network.Labels)) continue;
        if (usersOf(engine, network).length > 0 || Date.parse(network.Created) > until) continue;
        // VMs that are no containers keep theirs, stopped ones too.
        if ((await engine.vmsan.networks.get(network.Name)).members.length > 0) continue;
        await removeNetwork(engine, network);
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
    says: "works",
    run: async (call) => await member(call, true),
  },
  {
    method: "POST",
    path: "/networks/:id/disconnect",
    says: "works",
    run: async (call) => await member(call, false),
  },
  {
    method: "DELETE",
    path: "/networks/:id",
    says: "works",
    run: async (call) => {
      await removeNetwork(call.engine, await networkOf(call));
      done(call);
    },
  },
];
