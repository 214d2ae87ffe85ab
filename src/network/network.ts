/** Makes VMs' networks, keeps their leases, and removes them; the folder's one way in. */
import { join } from "node:path";
import { VmsanError, messageOf } from "../model/errors.ts";
import type { NetworkPolicy, PublishedPort } from "../model/policy.ts";
import { planFor, type Plan } from "./kernel/address.ts";
import { Helper, isLost } from "./helper.ts";
import { Ground } from "./ground.ts";
import { reshape } from "./bandwidth.ts";
import { Leases, checkId, type Lease } from "./leases.ts";
import { decisionOf } from "./log.ts";
import { checkPortsAgainstPolicy } from "./policy/parse.ts";
import { mayAdministrate, probeHost } from "./host/probe.ts";
import { Realm } from "./host/realm.ts";
import { RootlessRealm } from "./host/rootless.ts";
import { Making } from "./making.ts";
import { Removal } from "./removal.ts";
import { PrivateNets, type Wanted } from "./private/nets.ts";
import { Service } from "./service.ts";
import type {
  AttachedNetwork,
  NetworkCleanup,
  NetworkDecision,
  NetworkManager,
  NetworkOptions,
  NetworkProbe,
} from "./types.ts";
import { parseServer } from "./names/upstream.ts";

/** Milliseconds between looks at the host's own addresses, which rules name. */
const addressInterval = 15_000;

/** How often another slot is tried when a link of that name turns up in between. */
const slotAttempts = 8;

/** The manager. See {@link NetworkManager} for what each method promises. */
class Manager implements NetworkManager {
  private readonly options: NetworkOptions;
  private readonly realm: Realm;
  private readonly helper: Helper;
  private readonly leases: Leases;
  private readonly nets: PrivateNets;
  private readonly services = new Map<string, Service>();
  private readonly making: Making;
  private readonly removal: Removal;
  private readonly warn: (message: string) => void;
  private readonly ground: Ground;
  /** Attachments under way, which may not have a lease yet. */
  private attaching = 0;
  private readonly timer: NodeJS.Timeout;

  constructor(options: NetworkOptions, realm: Realm) {
    this.options = options;
    this.realm = realm;
    this.warn = options.onWarning ?? (() => undefined);
    this.leases = new Leases(options.dir, this.warn);
    this.helper = new Helper(
      () => [...realm.prefix, options.helper],
      (event) => this.services.get(event.vm)?.log.add(decisionOf(event)),
      () => this.relog(),
    );
    const { leases, helper } = this;
    const ground = new Ground(realm, helper, options.ipv6);
    this.ground = ground;
    // In another place it would be in one that is gone when that is made anew.
    if (realm.isHost) realm.launcher = async (...program) => await helper.run(...program);
    const planOf = (lease: Lease): Plan => this.planOf(lease);
    const nets = new PrivateNets({ realm, helper, leases, planOf });
    this.nets = nets;
    this.removal = new Removal({ realm, leases, nets, planOf });
    const { removal } = this;
    this.making = new Making({ realm, helper, leases, nets, ground, removal, planOf });
    this.timer = setInterval(() => void this.look(), addressInterval).unref();
  }

  /** The helper ended: its packet logs with it. */
  private relog(): void {
    for (const [vmId, service] of this.services) {
      service.relog().catch((error: unknown) => {
        this.warn(`${vmId}: the decision log has stopped: ${messageOf(error)}`);
      });
    }
  }

  /** Now and then: the host's addresses, and the way out of a realm that needs one kept up. */
  private async look(): Promise<void> {
    await this.refreshAddresses();
    if (this.services.size === 0 || this.realm.isHost || this.attaching > 0) return;
    try {
      await this.ground.enter();
    } catch (error) {
      this.warn(messageOf(error));
    }
  }

  /** When the host has got other addresses, no guest shall reach those. */
  private async refreshAddresses(): Promise<void> {
    if (!this.ground.lookAtAddresses()) return;
    for (const [vmId, service] of this.services) {
      try {
        await service.apply();
      } catch (error) {
        this.warn(`${vmId}: the host's new addresses are not in its rules: ${messageOf(error)}`);
      }
    }
  }

  probe(): Promise<NetworkProbe> {
    return probeHost(this.options.helper);
  }

  /** When no VM of ours has a network any more: take back what was done for all of them. */
  private async leaveHost(): Promise<{ what: string; why: string }[]> {
    if (this.attaching > 0 || this.leases.all().length > 0) return [];
    return await this.ground.leave();
  }

  /** The plan that a lease stands for. */
  private planOf(lease: Lease): Plan {
    const plan = planFor(lease.vmId, lease.slot, lease.prefix6);
    return { ...plan, netns: lease.netns ?? plan.netns };
  }

  /** The live side for a lease; not yet open. */
  private async serviceFor(lease: Lease): Promise<Service> {
    const plan = this.planOf(lease);
    const secrets = await this.options.secrets?.(lease.vmId);
    return new Service(
      {
        vmId: lease.vmId,
        plan,
        ipv6: lease.ipv6,
        helper: this.helper,
        helperPath: this.options.helper,
        secrets,
        netns: this.realm.netnsPath(plan.netns),
        upstreams: this.options.upstreams?.map(parseServer).filter((one) => one !== undefined),
        hostAddresses: () => this.ground.addresses,
        links: () => this.leases.get(lease.vmId)?.links ?? [],
        peers: () => this.options.peers?.(lease.vmId) ?? [],
        nft: (transaction, signal) => this.realm.nftIn(plan.netns, transaction, signal),
        arrival: async () => await this.options.onArrival?.(lease.vmId),
        decided: (decision) => this.options.onDecision?.(lease.vmId, decision),
        warn: this.warn,
      },
      lease.policy,
      lease.generation,
    );
  }

  async attach(
    vmId: string,
    policy: NetworkPolicy,
    ports: readonly PublishedPort[],
    signal: AbortSignal,
    networks: readonly Wanted[] = [],
  ): Promise<AttachedNetwork | undefined> {
    checkId(vmId);
    checkPortsAgainstPolicy(policy, ports);
    signal.throwIfAborted();
    if (this.leases.get(vmId) !== undefined) await this.detach(vmId);
    if (policy.mode === "none") return undefined;
    this.attaching += 1;
    try {
      await this.ground.prepare();
      await this.refreshAddresses();
      return await this.attachWithSlot(vmId, policy, ports, signal, networks);
    } finally {
      this.attaching -= 1;
    }
  }

  /** Make the network in a free slot; another one when its link turns up in between. */
  private async attachWithSlot(
    vmId: string,
    policy: NetworkPolicy,
    ports: readonly PublishedPort[],
    signal: AbortSignal,
    networks: readonly Wanted[],
  ): Promise<AttachedNetwork> {
    for (let attempt = 1; ; attempt += 1) {
      const lease = await this.making.lease(vmId, policy);
      const service = await this.serviceFor(lease);
      this.services.set(vmId, service);
      try {
        await service.publish(ports);
        await this.making.build(lease, service, signal, networks);
        signal.throwIfAborted();
        return this.making.describe(lease);
      } catch (error) {
        // Another installation may have taken the link's name in this moment; or nobody knows what was made.
        const taken =
          isLost(error) || /File exists/.test(error instanceof VmsanError ? (error.why ?? "") : "");
        const left = await this.detach(vmId);
        for (const { what, why } of left.failed) this.warn(`${vmId}: ${what} is left: ${why}`);
        if (!taken || attempt >= slotAttempts) throw error;
      }
    }
  }

  async place(vmId: string, networks: readonly Wanted[]): Promise<void> {
    const service = this.services.get(vmId);
    if (service === undefined || !this.isUp(vmId)) throw noNetwork(vmId);
    await this.nets.settle(vmId, networks);
    await service.apply();
    const now = this.leases.get(vmId);
    if (now?.changing === true) await this.leases.put({ ...now, changing: false });
  }

  async update(vmId: string, policy: NetworkPolicy): Promise<void> {
    const service = this.services.get(vmId);
    const old = this.leases.get(vmId);
    if (service === undefined || old === undefined) throw noNetwork(vmId);
    if (policy.mode === "none") {
      throw new VmsanError({
        code: "ERR_VALIDATION_POLICY_CONFLICT",
        message: `Cannot take the network card from ${vmId} while it runs`,
        why: "The policy none leaves no network card.",
        fix: "Use deny-all, which closes everything, or stop the VM first.",
      });
    }
    const generation = old.generation + 1;
    const plan = this.planOf(old);
    const mbit = policy.bandwidthMbit ?? 0;
    await service.update(policy, generation, {
      before: async () => {
        const now = this.leases.get(vmId) ?? old;
        await this.leases.put({ ...now, policy, generation, changing: true });
        await reshape(this.realm, plan.netns, now, mbit);
      },
      after: async () => {
        const now = this.leases.get(vmId);
        if (now !== undefined) {
          await this.leases.put({ ...now, changing: false, shapedMbit: mbit });
        }
      },
      undo: async () => {
        const now = this.leases.get(vmId);
        if (now === undefined) return;
        const { policy: before, shapedMbit } = old;
        // Unsure of the limit from here on: the next change makes it anew.
        await this.leases.put({ ...now, policy: before, shapedMbit, generation, changing: true });
        if (mbit !== shapedMbit) await reshape(this.realm, plan.netns, now, shapedMbit);
      },
    });
  }

  cut(vmId: string): void {
    this.services.get(vmId)?.cut();
  }

  isUp(vmId: string): boolean {
    const lease = this.leases.get(vmId);
    return lease !== undefined && this.realm.hasNetns(this.planOf(lease).netns);
  }

  async resume(
    vmId: string,
    policy: NetworkPolicy,
    ports: readonly PublishedPort[],
    networks: readonly Wanted[] = [],
  ): Promise<void> {
    if (policy.mode === "none" || this.services.has(vmId)) return;
    const lease = this.leases.get(vmId);
    if (lease === undefined || !this.realm.hasNetns(this.planOf(lease).netns)) {
      throw noNetwork(vmId);
    }
    await this.ground.prepare();
    const service = await this.serviceFor(lease);
    this.services.set(vmId, service);
    try {
      await service.open();
      // A daemon may have been killed while the VM came into one, or left.
      await this.nets.settle(vmId, networks);
    } catch (error) {
      this.services.delete(vmId);
      service.close();
      throw error;
    }
    if (
      this.leases.get(vmId)?.changing === true ||
      JSON.stringify(lease.policy) !== JSON.stringify(policy)
    ) {
      await this.update(vmId, policy);
    }
    // Last, and the network stays when it fails: the VM goes on without its published ports.
    await service.publish(ports);
  }

  async detach(vmId: string): Promise<NetworkCleanup> {
    this.services.get(vmId)?.close();
    this.services.delete(vmId);
    const lease = this.leases.get(vmId);
    if (lease === undefined) return { removed: [], failed: [] };
    if (lease.links.length === 0) return await this.removal.remove([lease]);
    return await this.nets.serial(async () => await this.removal.remove([lease]));
  }

  async forget(vmId: string): Promise<void> {
    if (this.services.has(vmId)) throw new Error(`the network of ${vmId} is served`);
    await this.leases.drop(vmId);
  }

  async sweep(live: ReadonlySet<string>): Promise<NetworkCleanup> {
    const dead = this.leases.all().filter((lease) => !live.has(lease.vmId));
    for (const { vmId } of dead) {
      this.services.get(vmId)?.close();
      this.services.delete(vmId);
    }
    const report = await this.nets.serial(async () => await this.removal.remove(dead));
    report.failed.push(...(await this.leaveHost()));
    return report;
  }

  decisions(vmId: string, since = 0): NetworkDecision[] {
    return this.services.get(vmId)?.log.since(since) ?? [];
  }

  followDecisions(vmId: string, signal: AbortSignal): AsyncIterable<NetworkDecision> {
    const service = this.services.get(vmId);
    if (service === undefined) throw noNetwork(vmId);
    return service.log.follow(signal);
  }

  async close(): Promise<void> {
    clearInterval(this.timer);
    for (const service of this.services.values()) service.close();
    this.services.clear();
    for (const { what, why } of await this.leaveHost()) this.warn(`${what} is left: ${why}`);
    this.helper.stop();
  }
}

/** The error for a VM whose network is not there. */
function noNetwork(vmId: string): VmsanError {
  return new VmsanError({
    code: "ERR_NETWORK_LOST",
    message: `Cannot use the network of ${vmId}`,
    why: "The VM has none, or it was removed behind vmsan's back.",
    fix: `Stop and start the VM: vmsan stop ${vmId}, vmsan start ${vmId}.`,
  });
}

/**
 * The manager of one installation; one at a time for a state directory.
 * @param realm where to make networks; default the host for root, else a stand-in for it
 * Throws ERR_NETWORK_STATE when the leases cannot be read.
 */
export function createNetworkManager(options: NetworkOptions, realm?: Realm): NetworkManager {
  const warn = options.onWarning ?? ((): void => undefined);
  const place =
    realm ??
    (mayAdministrate() ? new Realm() : new RootlessRealm(join(options.dir, "rootless"), warn));
  return new Manager(options, place);
}
