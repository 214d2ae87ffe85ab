/** Which VMs there are: each found by ID or name, and changed by one call at a time. */
import type { AgentChannel } from "../agent/channel.ts";
import type { ResourceUser, VmView } from "../model/api.ts";
import type { VmRecord } from "../model/vm.ts";
import { newVmId, parseVmRef } from "../util/names.ts";
import { damaged } from "./records/damaged.ts";
import type { Entry, EventLog } from "./records/entry.ts";
import { Events } from "./records/events.ts";
import type { BrokenRecord, VmRecords } from "./records/records.ts";
import { readSecrets } from "./records/secrets.ts";
import { nameTaken, notFound, notRunning, removed } from "./refusals.ts";
import { Places, peersOf } from "./records/memberships.ts";
import type { Stages } from "./stages.ts";
import { viewOf } from "./records/view.ts";

/** Characters after which a page of a list is full; the last VM on it may say 2 MiB more. */
const PAGE_LENGTH = 8 << 20;

/** Where a VM is in the list of all: it keeps its place, and texts compare as places do. */
function placeOf({ createdAt, id }: VmRecord): string {
  return `${createdAt} ${id}`;
}

/** All VMs of one VMSAN_DIR, as this process holds them, with what every change of one needs. */
export class VmTable {
  readonly entries = new Map<string, Entry>();
  /** VMs whose records cannot be read. */
  readonly broken = new Map<string, BrokenRecord>();
  readonly records: VmRecords;
  readonly stages: Stages;
  readonly log: EventLog;
  /** What happens to them. */
  readonly events: Events;
  /** Gives VMs their places in private networks. */
  readonly places: Places;
  /** Others that need images and kernels of the store. */
  otherUsers: () => ResourceUser[] = () => [];

  constructor(records: VmRecords, stages: Stages, log: EventLog, events = new Events()) {
    this.records = records;
    this.stages = stages;
    this.log = log;
    this.events = events;
    this.places = new Places(stages.privateNetworks);
    stages.networks.onPeers((vmId) => peersOf(this.entries, vmId));
    stages.networks.onSecrets(async (vmId) => {
      const { record } = this.entries.get(vmId) ?? {};
      return await readSecrets(records.dir(vmId), record);
    });
  }

  /** A VM by its ID or name. @throws ERR_VM_NOT_FOUND */
  find(ref: string): Entry {
    parseVmRef(ref);
    const broken = this.broken.get(ref);
    if (broken !== undefined) throw damaged(broken);
    const byId = this.entries.get(ref);
    if (byId !== undefined) return byId;
    for (const entry of this.entries.values()) if (entry.record.name === ref) return entry;
    throw notFound(ref);
  }

  /** Change a VM, one call at a time; nothing is changed, or saved, of one that is removed. */
  async exclusively<T>(ref: string, body: (entry: Entry) => Promise<T>): Promise<T> {
    const entry = this.find(ref);
    return await entry.mutex.run(async () => {
      if (entry.removing === true) throw notFound(ref);
      return await body(entry);
    });
  }

  /** @throws ERR_VM_NAME_TAKEN when another VM has the name */
  requireFreeName(name: string | undefined): void {
    if (name === undefined) return;
    for (const { record } of this.entries.values()) {
      if (record.name === name) throw nameTaken(name, record.id);
    }
  }

  /** A new ID with its directory. */
  async claimId(): Promise<string> {
    for (;;) {
      const id = newVmId();
      if (!this.entries.has(id) && (await this.records.claim(id))) return id;
    }
  }

  /** All VMs as they are now, oldest first. */
  list(): VmView[] {
    return this.inOrder().map((record) => viewOf(record));
  }

  /**
   * VMs as they are now, oldest first, as JSON: so many as one reply has room for.
   * @param wanted `project`: only of that one; `after`: behind a page's `next`
   */
  page(wanted: { project?: string | undefined; after?: string | undefined }): {
    vms: string[];
    next?: string;
  } {
    const { project, after = "" } = wanted;
    const left = this.inOrder().filter(
      (record) => (project === undefined || record.project === project) && placeOf(record) > after,
    );
    const vms: string[] = [];
    let length = 0;
    for (const record of left) {
      const text = JSON.stringify(viewOf(record));
      vms.push(text);
      length += text.length;
      if (length >= PAGE_LENGTH && record !== left.at(-1)) return { vms, next: placeOf(record) };
    }
    return { vms };
  }

  private inOrder(): VmRecord[] {
    return [...this.entries.values()]
      .map(({ record }) => record)
      .toSorted((a, b) => (placeOf(a) < placeOf(b) ? -1 : 1));
  }

  /** VMs whose records cannot be read, and why. */
  listDamaged(): BrokenRecord[] {
    return [...this.broken.values()];
  }

  /** All that need images, disks and kernels of the store. */
  users(): ResourceUser[] {
    return [...this.list(), ...this.otherUsers()];
  }

  /** One VM as it is now. @throws ERR_VM_NOT_FOUND */
  get(ref: string): VmView {
    return viewOf(this.find(ref).record);
  }

  /** The channel to a running VM's agent. @throws ERR_VM_NOT_RUNNING */
  channel(ref: string): AgentChannel {
    const entry = this.find(ref);
    if (entry.removing === true) throw removed(ref);
    if (entry.guest === undefined || entry.record.status !== "running") {
      throw notRunning(ref, entry.record);
    }
    return entry.guest.channel;
  }

  /** Path of a VM's console log. */
  consolePath(ref: string): string {
    const { record } = this.find(ref);
    return this.stages.driver(record.driver).consolePath(record.spec);
  }

  /** Whether any VM runs, is being made, or sleeps and is to be woken by its ports. */
  get active(): boolean {
    return [...this.entries.values()].some(
      ({ busy, guest, record }) =>
        guest !== undefined ||
        busy !== undefined ||
        (record.status === "suspended" && record.ports.length > 0),
    );
  }

  /** Tell those who wait for a VM's change of state. */
  changed(entry: Entry): void {
    for (const wake of entry.watchers) wake();
    entry.watchers.clear();
  }

  /** Resolves at a VM's next change of state. @throws the signal's reason */
  async change(entry: Entry, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    await new Promise<void>((resolve, reject) => {
      const wake = (): void => {
        signal.removeEventListener("abort", leave);
        resolve();
      };
      // A client may ask every few seconds for as long as a VM sleeps, which may be for ever.
      const leave = (): void => {
        entry.watchers.delete(wake);
        reject(signal.reason as Error);
      };
      entry.watchers.add(wake);
      signal.addEventListener("abort", leave, { once: true });
    });
  }

  /**
   * Save what is so whether it can be saved or not (the disk may be full): the next daemon sees
   * for itself that nothing of the VM runs.
   */
  protected async saveIfPossible(record: VmRecord): Promise<void> {
    try {
      await this.records.save(record);
    } catch (error) {
      this.log.error(`${record.id}: cannot save that it is ${record.status}`, error);
    }
  }

  /** Log what of a VM could not be cleaned up. */
  report(id: string, failed: readonly { what: string; why: string }[]): void {
    for (const { what, why } of failed) this.log.error(`${id}: could not ${what}: ${why}`);
  }
}
