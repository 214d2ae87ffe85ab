/** Private networks, for SDK users. */
import type {
  MembershipRequest,
  PrivateNetworkPrune,
  PrivateNetworkRequest,
  PrivateNetworkView,
} from "../model/private-network.ts";
import { encodeText } from "../util/byte-text.ts";
import { parseAlias, parseNetworkName, parseVmRef } from "../util/names.ts";
import type { Daemon } from "./daemon.ts";

/** A VM's place in a network, as SDK users ask for it. */
export interface PlaceOptions {
  /** Names by which its members find the VM besides its own; several VMs may share one. */
  aliases?: string[];
  /** Default: the next free one. */
  address?: string;
}

/** Path of a network's resource. @throws ERR_VALIDATION_NETWORK */
function networkPath(name: string, rest = ""): string {
  return `/v1/networks/${encodeText(parseNetworkName(name))}${rest}`;
}

/** Networks that a VM shall be in, in full. @throws ERR_VALIDATION_NETWORK */
export function memberships(
  networks: readonly (string | (PlaceOptions & { network: string }))[],
): MembershipRequest[] {
  return networks.map((each) => {
    const { network, aliases = [], address } = typeof each === "string" ? { network: each } : each;
    return {
      network: parseNetworkName(network),
      aliases: aliases.map(parseAlias),
      ...(address === undefined ? {} : { address }),
    };
  });
}

/** The private networks of one VMSAN_DIR: VMs in one reach each other by name and by address. */
export class PrivateNetworks {
  private readonly daemon: Daemon;

  constructor(daemon: Daemon) {
    this.daemon = daemon;
  }

  /** All networks by name, with who is in them. */
  async list(): Promise<PrivateNetworkView[]> {
    const reply = await this.daemon.call<{ networks: PrivateNetworkView[] }>("GET", "/v1/networks");
    return reply.networks;
  }

  /** A network by its name. @throws ERR_PRIVATE_NETWORK_NOT_FOUND */
  async get(name: string): Promise<PrivateNetworkView> {
    return await this.daemon.call<PrivateNetworkView>("GET", networkPath(name));
  }

  /**
   * Make a network.
   * @param options `subnet`: IPv4 range of its addresses, default a free /24
   * @throws ERR_PRIVATE_NETWORK_NAME_TAKEN, ERR_PRIVATE_NETWORK_SUBNET
   */
  async create(
    name: string,
    options: { subnet?: string; labels?: Record<string, string>; project?: string } = {},
  ): Promise<PrivateNetworkView> {
    const { subnet, labels = {}, project = "" } = options;
    const body: PrivateNetworkRequest = {
      name: parseNetworkName(name),
      labels,
      project,
      ...(subnet === undefined ? {} : { subnet }),
    };
    return await this.daemon.call<PrivateNetworkView>("POST", "/v1/networks", { body });
  }

  /** Remove a network. @throws ERR_PRIVATE_NETWORK_IN_USE while a VM is in it, also a stopped one */
  async remove(name: string): Promise<void> {
    await this.daemon.call("DELETE", networkPath(name));
  }

  /** Remove all networks that no VM is in. */
  async prune(): Promise<PrivateNetworkPrune> {
    return await this.daemon.call<PrivateNetworkPrune>("POST", "/v1/networks/prune", { body: {} });
  }

  /**
   * Put a VM into a network; one that runs is in it when this returns.
   * @param vm its ID or name
   * @throws ERR_PRIVATE_NETWORK_MEMBER, ERR_PRIVATE_NETWORK_ADDRESS, ERR_VM_NOT_RUNNING while it is paused
   */
  async connect(name: string, vm: string, options: PlaceOptions = {}): Promise<PrivateNetworkView> {
    const [wanted] = memberships([{ network: name, ...options }]);
    const { network: _, ...body } = wanted ?? { network: name };
    const path = networkPath(name, `/members/${parseVmRef(vm)}`);
    return await this.daemon.call<PrivateNetworkView>("PUT", path, { body });
  }

  /** Take a VM out of a network. @throws ERR_PRIVATE_NETWORK_NOT_MEMBER */
  async disconnect(name: string, vm: string): Promise<void> {
    await this.daemon.call("DELETE", networkPath(name, `/members/${parseVmRef(vm)}`));
  }
}
