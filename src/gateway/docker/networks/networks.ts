/**
 * Networks as Docker counts them: those that are built in, and the private networks of the host, which
 * members reach each other in by name and by address (docs/network.md). The host's own list is the truth.
 */
import { createHash } from "node:crypto";
import type { z } from "zod";
import type { Vmsan } from "../../../client/vmsan.ts";
import { VmsanError } from "../../../model/errors.ts";
import type { PrivateNetworkView } from "../../../model/private-network.ts";
import { networkExtraSchema, networkSchema } from "../../../schema/docker.ts";
import { DockerError, sentence } from "../errors.ts";
import type { Events } from "../events.ts";
import { readBody } from "../http/bodies.ts";

/** Label of a private network with what Docker's clients said of it besides. */
const EXTRA_LABEL = "vmsan.docker.network";

/** A network; `builtIn`: nobody has made it, and nobody can remove it. */
export interface Network {
  Name: string;
  Id: string;
  Created: string;
  Driver: string;
  Internal: boolean;
  Attachable: boolean;
  Labels: Record<string, string>;
  Options: Record<string, string>;
  /** IPv4 CIDR of its addresses; "" where each VM has one of its own. */
  subnet: string;
  builtIn: boolean;
}

const BUILT_IN: readonly Network[] = [
  ["bridge", "bridge", "b"],
  ["host", "host", "a"],
  ["none", "null", "0"],
].map(([Name = "", Driver = "", digit = ""]) => ({
  Name,
  Driver,
  Id: digit.repeat(64),
  Created: "2025-01-01T00:00:00Z",
  Internal: false,
  Attachable: false,
  Labels: {},
  Options: {},
  subnet: "",
  builtIn: true,
}));

const NO_EXTRA = { Internal: false, Attachable: false, Options: {} };

/** What of a network the host does not know; users may have written into that label, too. */
function extraOf(text: string | undefined): Pick<Network, "Internal" | "Attachable" | "Options"> {
  if (text === undefined) return NO_EXTRA;
  try {
    return networkExtraSchema.parse(JSON.parse(text));
  } catch {
    // Not what was written: as if nothing had been.
    return NO_EXTRA;
  }
}

/** A private network as Docker counts it; its ID stays as long as it is there. */
function networkOf({ name, createdAt, labels, subnet }: PrivateNetworkView): Network {
  const { [EXTRA_LABEL]: extra, ...own } = labels;
  return {
    Name: name,
    Id: createHash("sha256").update(`${name}\n${createdAt}`).digest("hex"),
    Created: createdAt,
    Driver: "bridge",
    ...extraOf(extra),
    Labels: own,
    subnet,
    builtIn: false,
  };
}

/** Words about what is asked for and does nothing. */
function unapplied({ EnableIPv6: ipv6, IPAM: ipam }: z.infer<typeof networkSchema>): string {
  const configs = ipam?.Config ?? [];
  const asks = {
    "--ipv6": ipv6,
    "--gateway": configs.some(({ Gateway }) => Gateway),
    "--ip-range": configs.some(({ IPRange }) => IPRange),
    "--aux-address": configs.some((one) => Object.keys(one.AuxiliaryAddresses ?? {}).length > 0),
  };
  const names = Object.entries(asks).flatMap(([name, asked]) => (asked ? [name] : []));
  const why = "members have IPv4 addresses of the subnet, and need no gateway of it";
  return names.length === 0 ? "" : `Not applied: ${names.join(", ")}: ${why}.`;
}

/** The networks of one VMSAN_DIR. */
export class Networks {
  private readonly vmsan: Vmsan;
  private readonly events: Events;

  constructor(vmsan: Vmsan, events: Events) {
    this.vmsan = vmsan;
    this.events = events;
  }

  /** All networks. Those of keys' projects are not Docker's. */
  async list(): Promise<Network[]> {
    // Those that users make are one host's.
    if (this.vmsan.cluster) return [...BUILT_IN];
    const own = (await this.vmsan.networks.list()).filter(({ project }) => project === "");
    return [...BUILT_IN, ...own.map(networkOf)];
  }

  /** One by name, ID or the beginning of that. @throws 404 */
  async find(ref: string): Promise<Network> {
    const builtIn = BUILT_IN.find(({ Name }) => Name === ref);
    if (builtIn !== undefined) return builtIn;
    const all = await this.list();
    const found =
      all.find(({ Name, Id }) => Name === ref || Id === ref) ??
      (/^[0-9a-f]{4,}$/.test(ref) ? all.find(({ Id }) => Id.startsWith(ref)) : undefined);
    if (found !== undefined) return found;
    throw new DockerError(404, `network ${ref.slice(0, 200)} not found`);
  }

  /** Make one; `warning` says what of the request does nothing. @throws 400, 409 when the name is taken */
  async create(given: unknown): Promise<{ network: Network; warning: string }> {
    const body = readBody(networkSchema, given, "request to create a network");
    const driver = body.Driver || "bridge";
    if (driver !== "bridge" && driver !== "default") {
      throw new DockerError(
        400,
        `could not find plugin ${driver.slice(0, 60)} in v1 plugin registry: there are bridge networks alone`,
      );
    }
    const taken = new DockerError(409, `network with name ${body.Name} already exists`);
    if (BUILT_IN.some(({ Name }) => Name === body.Name)) throw taken;
    const [config] = body.IPAM?.Config ?? [];
    const extra = {
      Internal: body.Internal ?? false,
      Attachable: body.Attachable ?? false,
      Options: body.Options ?? {},
    };
    try {
      const made = await this.vmsan.networks.create(body.Name, {
        labels: { ...body.Labels, [EXTRA_LABEL]: JSON.stringify(extra) },
        ...(config?.Subnet ? { subnet: config.Subnet } : {}),
      });
      const network = networkOf(made);
      this.events.emit("network", "create", network.Id, { name: network.Name, type: "bridge" });
      return { network, warning: unapplied(body) };
    } catch (error) {
      if (!(error instanceof VmsanError)) throw error;
      if (error.code === "ERR_PRIVATE_NETWORK_NAME_TAKEN") throw taken;
      if (error.code === "ERR_PRIVATE_NETWORK_SUBNET") {
        throw new DockerError(403, `invalid pool request: ${sentence(error)}`, error);
      }
      throw error;
    }
  }

  /** Remove one that no container that runs is on. @param owns whether a VM is a container's. @throws 403 */
  async remove(network: Network, owns: (vm: string) => boolean): Promise<void> {
    const { Name, Id } = network;
    if (network.builtIn) {
      throw new DockerError(403, `${Name} is a pre-defined network and cannot be removed`);
    }
    const active = new DockerError(
      403,
      `error while removing network: network ${Name} id ${Id} has active endpoints`,
    );
    const { members } = await this.vmsan.networks.get(Name);
    if (members.some(({ connected }) => connected)) throw active;
    const other = members.find(({ id }) => !owns(id));
    if (other !== undefined) {
      const what = `the VM ${other.name ?? other.id}, which is no container, is on it (vmsan network disconnect)`;
      throw new DockerError(active.status, `${active.message}: ${what}`);
    }
    // Docker lets containers that are stopped keep a network that is no more; they do not start without it.
    for (const { id } of members) await this.vmsan.networks.disconnect(Name, id);
    try {
      await this.vmsan.networks.remove(Name);
    } catch (error) {
      if (error instanceof VmsanError && error.code === "ERR_PRIVATE_NETWORK_IN_USE") throw active;
      throw error;
    }
    this.events.emit("network", "destroy", Id, { name: Name, type: "bridge" });
  }
}
