/** Private networks as the API shows them: joined with the VMs that are in them. */
import { VmsanError } from "../model/errors.ts";
import type {
  Membership,
  MembershipRequest,
  PrivateNetworkPrune,
  PrivateNetworkRecord,
  PrivateNetworkRequest,
  PrivateNetworkView,
} from "../model/private-network.ts";
import type { VmRecord } from "../model/vm.ts";
import type { PrivateNetworkStore } from "../network/private/store.ts";
import type { Entry } from "./records/entry.ts";
import { isConnected, membersOf, requireCard } from "./records/memberships.ts";
import { notRunning } from "./refusals.ts";
import type { Sandboxes } from "./sandboxes.ts";
import { tellNetwork } from "./starting/bring-up.ts";

/** Milliseconds that a guest has to take another address. */
const TELL_MS = 60_000;

/** The networks' public face; the daemon serves exactly this. */
export class PrivateNetworks {
  private readonly sandboxes: Sandboxes;
  private readonly store: PrivateNetworkStore;

  constructor(sandboxes: Sandboxes) {
    this.sandboxes = sandboxes;
    this.store = sandboxes.stages.privateNetworks;
  }

  private view(record: Omit<PrivateNetworkRecord, "schema">): PrivateNetworkView {
    const { name, createdAt, project, labels, subnet } = record;
    const members = membersOf(this.sandboxes.entries.values(), name);
    return {
      name,
      createdAt,
      project,
      labels,
      subnet,
      members: members.map(({ record: vm, membership: { address, aliases } }) => ({
        id: vm.id,
        ...(vm.name === undefined ? {} : { name: vm.name }),
        address,
        aliases,
        connected: isConnected(vm),
      })),
    };
  }

  /** All networks by name; of one whose document cannot be read, why. */
  list(): PrivateNetworkView[] {
    const damaged = [...this.store.damaged].map(([name, why]) => ({
      ...this.view({ name, createdAt: "", project: "", labels: {}, subnet: "" }),
      damaged: why,
    }));
    return [...this.store.list().map((record) => this.view(record)), ...damaged];
  }

  /** One network. @throws ERR_PRIVATE_NETWORK_NOT_FOUND */
  get(name: string): PrivateNetworkView {
    return this.view(this.store.get(name));
  }

  /** Make a network. @throws ERR_PRIVATE_NETWORK_NAME_TAKEN, ERR_PRIVATE_NETWORK_SUBNET */
  async create(request: PrivateNetworkRequest): Promise<PrivateNetworkView> {
    const made = this.view(await this.store.create(request));
    this.sandboxes.events.host("network.created", { network: made.name });
    return made;
  }

  /** Remove a network that no VM is in, not even a stopped one. @throws ERR_PRIVATE_NETWORK_IN_USE */
  async remove(name: string): Promise<void> {
    const users = membersOf(this.sandboxes.entries.values(), name).map(({ record }) => record);
    if (users.length > 0) {
      const names = users.map((vm) => vm.name ?? vm.id);
      throw new VmsanError({
        code: "ERR_PRIVATE_NETWORK_IN_USE",
        message: `Cannot remove the private network ${name}`,
        why: `${names.join(", ")} ${names.length === 1 ? "is" : "are"} in it.`,
        fix: `Take them out first: vmsan network disconnect ${name} ${names.join(" ")}`,
        details: { vms: names },
      });
    }
    await this.store.remove(name);
    this.sandboxes.places.forget(name);
    this.sandboxes.events.host("network.removed", { network: name });
  }

  /** Remove all networks that no VM is in. */
  async prune(): Promise<PrivateNetworkPrune> {
    const networks: string[] = [];
    for (const { name } of this.store.list()) {
      if (membersOf(this.sandboxes.entries.values(), name).length > 0) continue;
      await this.remove(name);
      networks.push(name);
    }
    return { networks };
  }

  /**
   * Put a VM into a network; one that runs reaches it, and is reached, when this returns.
   * @throws ERR_PRIVATE_NETWORK_NOT_FOUND, ERR_PRIVATE_NETWORK_MEMBER, ERR_PRIVATE_NETWORK_ADDRESS
   */
  async connect(ref: string, wanted: MembershipRequest): Promise<PrivateNetworkView> {
    this.store.get(wanted.network);
    await this.sandboxes.exclusively(ref, async (entry) => {
      const { record } = entry;
      requireCard(record, [wanted]);
      requireSettled(ref, entry);
      const { entries, places } = this.sandboxes;
      const given = places.give(entries.values(), record.id, [wanted], record.networks);
      await this.place(entry, given);
      this.tell("network.connected", record, given.at(-1));
    });
    return this.get(wanted.network);
  }

  /** Take a VM out of a network. @throws ERR_PRIVATE_NETWORK_NOT_MEMBER */
  async disconnect(ref: string, name: string): Promise<void> {
    await this.sandboxes.exclusively(ref, async (entry) => {
      const { networks = [] } = entry.record;
      const membership = networks.find(({ network }) => network === name);
      if (membership === undefined) throw notMember(ref, name);
      requireSettled(ref, entry);
      await this.place(
        entry,
        networks.filter(({ network }) => network !== name),
      );
      this.tell("network.disconnected", entry.record, membership);
    });
  }

  /** Tell those who watch that a VM was put into a network, or taken out. */
  private tell(
    type: "network.connected" | "network.disconnected",
    record: VmRecord,
    membership: Membership | undefined,
  ): void {
    if (membership === undefined) return;
    const { network, address } = membership;
    this.sandboxes.events.vm(type, record, { network, address });
  }

  /** Give a VM these places and no others; with its turn. On failure it has those that it had. */
  private async place(entry: Entry, networks: Membership[]): Promise<void> {
    const { records } = this.sandboxes;
    const { record } = entry;
    const before = record.networks ?? [];
    record.networks = networks;
    try {
      // From here on the next daemon goes on with it, should this one be killed.
      if (isConnected(record)) record.placing = true;
      await records.save(record);
      await this.carryOut(entry);
    } catch (error) {
      record.networks = before;
      try {
        await this.carryOut(entry);
      } catch (later) {
        this.sandboxes.log.error(`${record.id}: its networks are not what they were`, later);
      }
      throw error;
    } finally {
      delete record.placing;
      await records.save(record);
    }
  }

  /** Make what a VM's record says of its networks so. */
  private async carryOut({ record, guest }: Entry): Promise<void> {
    if (!isConnected(record)) return;
    const { networks } = this.sandboxes.stages;
    // One that sleeps is told when it wakes.
    if (guest !== undefined || networks.isUp(record.id)) {
      await networks.place(record.id, record.networks ?? []);
    }
    if (guest !== undefined) await tellNetwork(record, guest, AbortSignal.timeout(TELL_MS));
  }
}

/** A VM whose guest cannot be told now, or that has no card to be told about. */
function requireSettled(ref: string, { record, guest }: Entry): void {
  if (guest === undefined) return;
  if (record.status !== "running") throw notRunning(ref, record);
  if (isConnected(record)) return;
  throw new VmsanError({
    code: "ERR_NETWORK_UNAVAILABLE",
    message: `Cannot change the private networks of ${ref}`,
    why: record.networkReason ?? "It has no network card.",
    fix: "Run `vmsan doctor`: it tells what networks need on this host.",
  });
}

/** The VM is not in that network. */
function notMember(ref: string, name: string): VmsanError {
  return new VmsanError({
    code: "ERR_PRIVATE_NETWORK_NOT_MEMBER",
    message: `Cannot take ${ref} out of the private network ${name}`,
    why: "It is not in it.",
    fix: `vmsan network inspect ${name} shows who is.`,
  });
}
