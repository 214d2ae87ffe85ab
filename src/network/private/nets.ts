/**
 * Makes the links of private networks, and removes them. A network's namespace is there while a VM
 * that runs is in it: the first one makes it, it goes with the last. Which one it is the VMs' leases
 * say, written before anything is made; there is no list of networks in the kernel to go wrong.
 */
import { randomBytes } from "node:crypto";
import type { Membership } from "../../model/private-network.ts";
import { isLost, type Helper } from "../helper.ts";
import type { Realm } from "../host/realm.ts";
import type { Plan } from "../kernel/address.ts";
import type { Lease, Leases } from "../leases.ts";
import * as text from "./links.ts";
import type { PrivateLink } from "./links.ts";

/** A network that a VM is to be in. */
export type Wanted = Pick<Membership, "network" | "subnet" | "address">;

/** What {@link PrivateNets} works with. */
export interface PrivateNetsOptions {
  realm: Realm;
  helper: Helper;
  leases: Leases;
  planOf: (lease: Lease) => Plan;
}

/** The private networks of one installation, in the kernel. */
export class PrivateNets {
  private readonly options: PrivateNetsOptions;
  private queue: Promise<unknown> = Promise.resolve();
  /** Namespaces of networks that this process knows to be finished. */
  private readonly ready = new Set<string>();

  constructor(options: PrivateNetsOptions) {
    this.options = options;
  }

  /** One change after another: who comes and who goes meet in the network's namespace. */
  serial<T>(body: () => Promise<T>): Promise<T> {
    const result = this.queue.then(body);
    // A failed change is its caller's; the next one starts all the same.
    this.queue = result.catch(() => undefined);
    return result;
  }

  /**
   * See to it that a VM has links into these networks and no others. Its rules are the caller's:
   * until they fit, its lease says that it is changing.
   */
  async settle(vmId: string, wanted: readonly Wanted[]): Promise<void> {
    try {
      await this.settleOnce(vmId, wanted);
    } catch (error) {
      if (!isLost(error)) throw error;
      // Nobody knows how far it came; its lease says that it is changing, so that it is made anew.
      await this.settleOnce(vmId, wanted);
    }
  }

  private async settleOnce(vmId: string, wanted: readonly Wanted[]): Promise<void> {
    const { links = [], changing = false } = this.options.leases.get(vmId) ?? {};
    if (links.length === 0 && wanted.length === 0) return;
    await this.serial(async () => {
      for (const link of links) {
        const same = wanted.some(
          ({ network, subnet, address }) =>
            network === link.network && subnet === link.subnet && address === link.address,
        );
        // A link that is noted is there, but for one whose maker did not come to its end.
        const isThere = !changing && this.options.realm.hasNetns(link.netns);
        if (!same || !isThere) await this.leave(vmId, link);
      }
      for (const each of wanted) {
        const lease = this.options.leases.get(vmId);
        if (lease === undefined) throw new Error(`no lease of ${vmId}`);
        if (!lease.links.some(({ network }) => network === each.network)) {
          await this.join(lease, each);
        }
      }
    });
  }

  private async join(lease: Lease, wanted: Wanted): Promise<void> {
    const { realm, leases, planOf } = this.options;
    const used = new Set(lease.links.map(({ index }) => index));
    let index = 0;
    while (used.has(index)) index += 1;
    const { network, subnet, address } = wanted;
    const netns = this.netnsOf(network);
    const link: PrivateLink = { network, netns, index, subnet, address };
    await leases.put({ ...lease, changing: true, links: [...lease.links, link] });
    const plan = planOf(lease);
    await this.makeNetwork(netns);
    await realm.ip(text.pairLinks(plan, link));
    await Promise.all([
      realm.ipIn(netns, text.networkSide(plan, link)),
      realm.ipIn(plan.netns, text.memberSide(plan, link)),
    ]);
  }

  /** Name of the namespace that a network's other members are in, or a new one. */
  private netnsOf(network: string): string {
    const { leases, realm } = this.options;
    const links = leases.all().flatMap((lease) => lease.links);
    const known = links.find((link) => link.network === network && realm.hasNetns(link.netns));
    return known?.netns ?? `vmsan-net-${randomBytes(4).toString("hex")}`;
  }

  /** A network's namespace, closed before anybody is in it; one that was not finished is finished. */
  private async makeNetwork(netns: string): Promise<void> {
    const { realm, helper } = this.options;
    for (const known of this.ready) if (!realm.hasNetns(known)) this.ready.delete(known);
    if (this.ready.has(netns)) return;
    if (!realm.hasNetns(netns)) await realm.ip(`netns add ${netns}\n`);
    await helper.sysctl(realm.netnsPath(netns), { ...text.networkSysctls });
    await realm.nftIn(netns, text.networkRuleset);
    this.ready.add(netns);
  }

  private async leave(vmId: string, link: PrivateLink): Promise<void> {
    const { realm, leases, planOf } = this.options;
    const lease = leases.get(vmId);
    if (lease === undefined) return;
    await realm.ipIn(planOf(lease).netns, text.unlink(link), undefined, true);
    const links = lease.links.filter((each) => each !== link);
    const unused = this.unused([lease]).includes(link.netns);
    if (unused && realm.hasNetns(link.netns)) await realm.ip(`netns del ${link.netns}\n`);
    await leases.put({ ...lease, changing: true, links });
  }

  /** Namespaces of networks that nobody is in but the VMs of these leases. */
  unused(leases: readonly Lease[]): string[] {
    const going = new Set(leases.map(({ vmId }) => vmId));
    const others = this.options.leases.all().filter(({ vmId }) => !going.has(vmId));
    const kept = new Set(others.flatMap(({ links }) => links.map(({ netns }) => netns)));
    const theirs = leases.flatMap(({ links }) => links.map(({ netns }) => netns));
    return [...new Set(theirs)].filter((netns) => !kept.has(netns));
  }
}
