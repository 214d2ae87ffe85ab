/**
 * Who is in which private network. As with volumes there is no list beside the VMs' records, which
 * say what address each has where; a VM keeps it while it is stopped.
 */
import { VmsanError } from "../../model/errors.ts";
import type { Membership, MembershipRequest } from "../../model/private-network.ts";
import type { VmRecord } from "../../model/vm.ts";
import type { Peer } from "../../network/private/names.ts";
import type { PrivateNetworkStore } from "../../network/private/store.ts";
import { isMemberAddress, memberAddress } from "../../network/private/subnets.ts";
import { MAX_NETWORKS } from "../../util/names.ts";
import { invalid } from "../../util/units.ts";
import type { Entry } from "./entry.ts";

/** A VM in a network. */
export interface Member {
  record: VmRecord;
  membership: Membership;
}

/** The VMs in a network, also stopped ones. */
export function membersOf(entries: Iterable<Entry>, network: string): Member[] {
  return [...entries].flatMap(({ record }) => {
    const membership = record.networks?.find((each) => each.network === network);
    return membership === undefined ? [] : [{ record, membership }];
  });
}

/** Whether a VM is where its networks are. */
export function isConnected({ guestNetwork }: VmRecord): boolean {
  return guestNetwork !== undefined;
}

/** Who can be reached in a VM's networks, the VM included. */
export function peersOf(entries: ReadonlyMap<string, Entry>, vmId: string): Peer[] {
  const own = entries.get(vmId)?.record.networks ?? [];
  return own.flatMap(({ network }) =>
    membersOf(entries.values(), network)
      .filter(({ record }) => isConnected(record))
      .map(({ record: { id, name }, membership: { address, aliases } }) => ({
        network,
        address,
        names: name === undefined ? [id, ...aliases] : [name, id, ...aliases],
      })),
  );
}

/** Gives VMs their places in networks. */
export class Places {
  private readonly store: PrivateNetworkStore;
  /** The address given last, by network. */
  private readonly last = new Map<string, string>();

  constructor(store: PrivateNetworkStore) {
    this.store = store;
  }

  /**
   * Places for a VM, which count once they are in its record: nothing waits in between.
   * @param self the VM's ID
   * @throws ERR_PRIVATE_NETWORK_NOT_FOUND, ERR_PRIVATE_NETWORK_ADDRESS, ERR_VALIDATION_NETWORK
   */
  give(
    entries: Iterable<Entry>,
    self: string,
    wanted: readonly MembershipRequest[],
    has: readonly Membership[] = [],
  ): Membership[] {
    const others = [...entries].filter(({ record }) => record.id !== self);
    const all = [...has];
    for (const { network, address, aliases } of wanted) {
      if (all.some((each) => each.network === network)) throw already(network);
      if (all.length >= MAX_NETWORKS) throw tooMany(network);
      const { subnet } = this.store.get(network);
      const taken = new Set(membersOf(others, network).map((each) => each.membership.address));
      const given = memberAddress(network, subnet, address, taken, this.last.get(network));
      if (address === undefined) this.last.set(network, given);
      all.push({ network, subnet, address: given, aliases: [...new Set(aliases)] });
    }
    return all;
  }

  /** A network is no more. */
  forget(network: string): void {
    this.last.delete(network);
  }

  /**
   * The places of a VM that starts again: its own, where the networks are still what they were.
   * @throws ERR_PRIVATE_NETWORK_NOT_FOUND …
   */
  renew(entries: Iterable<Entry>, { id, networks = [] }: VmRecord): Membership[] {
    const others = [...entries].filter(({ record }) => record.id !== id);
    const wanted = networks.map(({ network, address, aliases }): MembershipRequest => {
      const { subnet } = this.store.get(network);
      const taken = membersOf(others, network).some((each) => each.membership.address === address);
      const fits = !taken && isMemberAddress(subnet, address);
      return { network, aliases, ...(fits ? { address } : {}) };
    });
    return this.give(others, id, wanted);
  }
}

/** A VM is in a network once. */
function already(network: string): VmsanError {
  return new VmsanError({
    code: "ERR_PRIVATE_NETWORK_MEMBER",
    message: `Cannot put the VM into the private network ${network}`,
    why: "It is in it already.",
    fix: `For other aliases take it out first: vmsan network disconnect ${network} VM`,
  });
}

/** More networks than a VM may have. */
function tooMany(network: string): VmsanError {
  const why = `A VM is in at most ${MAX_NETWORKS}.`;
  return invalid("NETWORK", "number of networks", network, why, "Name fewer.");
}

/** A VM without a network card is in no network. */
export function requireCard(record: VmRecord, networks: readonly MembershipRequest[]): void {
  const [first] = networks;
  if (first === undefined || record.policy.mode !== "none") return;
  throw new VmsanError({
    code: "ERR_VALIDATION_POLICY_CONFLICT",
    message: `Cannot put a VM without a network card into the private network ${first.network}`,
    why: "Its network policy is none.",
    fix: "Use --network-policy deny-all: it reaches the networks that it is in, and nothing else.",
  });
}
