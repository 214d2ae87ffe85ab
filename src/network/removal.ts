/** Takes away what networks have in the kernel, and nothing of others. */
import type { Realm } from "./host/realm.ts";
import type { Plan } from "./kernel/address.ts";
import { removeLinks } from "./kernel/links.ts";
import type { Lease, Leases } from "./leases.ts";
import type { PrivateNets } from "./private/nets.ts";
import type { NetworkCleanup } from "./types.ts";

/** What {@link Removal} works with. */
export interface RemovalParts {
  realm: Realm;
  leases: Leases;
  nets: PrivateNets;
  planOf: (lease: Lease) => Plan;
}

/** Removes the networks of leases. */
export class Removal {
  private readonly parts: RemovalParts;
  /** VMs whose link this process has made itself. */
  private readonly linked = new Set<string>();

  constructor(parts: RemovalParts) {
    this.parts = parts;
  }

  /** The link of a VM was made by this process, or none has been yet. */
  note(vmId: string, linked: boolean): void {
    if (linked) this.linked.add(vmId);
    else this.linked.delete(vmId);
  }

  /**
   * Which of these leases' links are theirs: of two installations that take the same slot in one moment, one has
   * a namespace and the other one's link before it.
   */
  private async owners(leases: readonly Lease[]): Promise<ReadonlySet<Lease>> {
    const unsure = leases.filter(({ vmId }) => !this.linked.has(vmId));
    const names = unsure.map((lease) => this.parts.planOf(lease).hostLink);
    const addresses = await this.parts.realm.hardwareAddresses(names).catch(() => undefined);
    return new Set(
      leases.filter((lease) => {
        const { hostLink, hostMac } = this.parts.planOf(lease);
        return this.linked.has(lease.vmId) || addresses?.get(hostLink) === hostMac;
      }),
    );
  }

  /** Remove what leases stand for, in one launch or two; a lease whose things stay is kept. */
  async remove(leases: readonly Lease[]): Promise<NetworkCleanup> {
    const report: NetworkCleanup = { removed: [], failed: [] };
    const owners = await this.owners(leases);
    const present = (): Map<Lease, { link: boolean; netns: boolean }> => {
      return new Map(
        leases.map((lease) => {
          const { hostLink, netns } = this.parts.planOf(lease);
          const link = owners.has(lease) && this.parts.realm.hasLink(hostLink);
          return [lease, { link, netns: this.parts.realm.hasNetns(netns) }];
        }),
      );
    };
    const before = present();
    const batch = [...before].map(([lease, has]) =>
      // What leads nowhere of ours belongs to whoever made it since.
      removeLinks(this.parts.planOf(lease), { netns: has.netns, link: has.link && has.netns }),
    );
    const nets = this.parts.nets.unused(leases).filter((name) => this.parts.realm.hasNetns(name));
    batch.push(...nets.map((name) => `netns del ${name}\n`));
    if (batch.join("") !== "") await this.parts.realm.ip(batch.join(""), undefined, true);
    const left = nets.filter((name) => this.parts.realm.hasNetns(name));
    report.removed.push(...nets.filter((name) => !left.includes(name)));
    const why = "The network namespace is still there.";
    report.failed.push(...left.map((what) => ({ what, why })));
    for (const [lease, has] of present()) {
      const { netns, hostLink } = this.parts.planOf(lease);
      const was = before.get(lease);
      if (was?.netns === true) {
        if (has.netns)
          report.failed.push({ what: netns, why: "The network namespace is still there." });
        else report.removed.push(netns);
      }
      if (was?.link === true && was.netns) {
        if (has.link) report.failed.push({ what: hostLink, why: "The link is still there." });
        else report.removed.push(hostLink);
      }
      const isLeft = has.netns || (has.link && was?.netns === true);
      const keeps = lease.links.some(({ netns: net }) => left.includes(net));
      if (!isLeft && !keeps) {
        this.linked.delete(lease.vmId);
        await this.parts.leases.drop(lease.vmId);
      }
    }
    return report;
  }
}
