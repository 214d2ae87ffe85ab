/** Makes what a VM's network has in the kernel; removal.ts takes it away. */
import type { GuestNetwork, NetworkPolicy } from "../model/policy.ts";
import type { Ground } from "./ground.ts";
import type { Helper } from "./helper.ts";
import type { Realm } from "./host/realm.ts";
import { mtu, planFor, tapName, type Plan } from "./kernel/address.ts";
import {
  guestLinks,
  guestSysctls,
  hostLinks,
  proxyTable,
  shape,
  shaperLink,
} from "./kernel/links.ts";
import { proxyMark } from "./kernel/rule-input.ts";
import type { Lease, Leases } from "./leases.ts";
import type { PrivateNets, Wanted } from "./private/nets.ts";
import type { Removal } from "./removal.ts";
import type { Service } from "./service.ts";
import type { AttachedNetwork } from "./types.ts";

/** What {@link Making} works with. */
export interface MakingParts {
  realm: Realm;
  helper: Helper;
  leases: Leases;
  nets: PrivateNets;
  ground: Ground;
  removal: Removal;
  planOf: (lease: Lease) => Plan;
}

/** Makes the networks of leases. */
export class Making {
  private readonly parts: MakingParts;

  constructor(parts: MakingParts) {
    this.parts = parts;
  }

  /** The first of a name and its successors that nobody has: a copied VM's original may run. */
  private freeNetns(name: string): string {
    for (let number = 1; ; number += 1) {
      const candidate = number === 1 ? name : `${name}-${number}`;
      if (!this.parts.realm.hasNetns(candidate)) return candidate;
    }
  }

  /** A lease with a slot whose link does not exist, written before anything is made. */
  async lease(vmId: string, policy: NetworkPolicy): Promise<Lease> {
    const { realm, leases, ground, removal } = this.parts;
    const slot = leases.freeSlot((candidate) => realm.hasLink(`vmsan${candidate}`));
    const { netns } = planFor(vmId, slot, ground.prefix6);
    // No link of this slot has been made yet, whatever an earlier lease had.
    removal.note(vmId, false);
    const lease: Lease = {
      schema: 1,
      vmId,
      netns: this.freeNetns(netns),
      slot,
      prefix6: ground.prefix6,
      ipv6: ground.wantsIpv6(),
      policy,
      generation: 1,
      changing: false,
      shapedMbit: 0,
      links: [],
    };
    await leases.put(lease);
    return lease;
  }

  /** Make everything in the kernel: three launches, five with a bandwidth limit. */
  async build(
    lease: Lease,
    service: Service,
    signal: AbortSignal,
    networks: readonly Wanted[],
  ): Promise<void> {
    const { realm, helper, leases, nets, removal } = this.parts;
    const plan = this.parts.planOf(lease);
    const { ipv6, policy } = lease;
    await realm.ip(`netns add ${plan.netns}\n${hostLinks(plan, ipv6)}`, signal);
    removal.note(lease.vmId, true);
    const mbit = policy.bandwidthMbit;
    const inside = guestLinks(plan, ipv6) + (mbit === undefined ? "" : shaperLink());
    await realm.ipIn(plan.netns, inside, signal);
    await nets.settle(lease.vmId, networks);
    const netns = realm.netnsPath(plan.netns);
    await Promise.all([
      helper.sysctl(netns, guestSysctls(ipv6)),
      ...(ipv6 ? [helper.rule6(netns, proxyMark, proxyTable)] : []),
      service.apply(signal),
      service.open(),
      ...(mbit === undefined ? [] : [realm.tcIn(plan.netns, shape(mbit, false), signal)]),
    ]);
    const now = leases.get(lease.vmId);
    if (now !== undefined && (mbit !== undefined || networks.length > 0)) {
      await leases.put({ ...now, changing: false, shapedMbit: mbit ?? 0 });
    }
  }

  /** What VMM and guest are told. */
  describe(lease: Lease): AttachedNetwork {
    const { realm, planOf } = this.parts;
    const plan = planOf(lease);
    const named = lease.policy.mode === "none" ? [] : [plan.gateway4];
    const guest: GuestNetwork = {
      mac: plan.guestMac,
      ipv4: `${plan.guest4}/${plan.prefix4}`,
      gateway4: plan.gateway4,
      ...(lease.ipv6 ? { ipv6: `${plan.guest6}/${plan.prefix6}`, gateway6: plan.gateway6 } : {}),
      dns: named,
      mtu,
    };
    return {
      attachment: {
        ...realm.reach(plan.netns),
        tap: tapName,
        mac: plan.guestMac,
        enter: realm.enter(plan.netns),
      },
      guest,
    };
  }
}
