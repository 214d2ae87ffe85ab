/** All VMs of one VMSAN_DIR: made, started, stopped, removed, and found again. */
import type { AgentChannel } from "../agent/channel.ts";
import type { CreateRequest, ResourceUser, VmView } from "../model/api.ts";
import { VmsanError, messageOf } from "../model/errors.ts";
import type { NetworkPolicy } from "../model/policy.ts";
import type { VmRecord } from "../model/vm.ts";
import { newVmId, parseVmRef } from "../util/names.ts";
import { checkIsolation } from "../vmm/isolation.ts";
import { bringUp, tearDown } from "./bring-up.ts";
import type { Entry, EventLog } from "./entry.ts";
import type { LiveGuest } from "./bring-up.ts";
import { settleIn, standingOf } from "./copies.ts";
import { damaged, removeDamaged } from "./damaged.ts";
import { thaw } from "../snapshots/freeze.ts";
import { Mutex } from "./mutex.ts";
import { endVmm, finishMending } from "./snapshots/bring-back.ts";
import type { BrokenRecord, VmRecords } from "./records.ts";
import { newRecord, prepareVm } from "./new-vm.ts";
import {
  interrupted,
  nameTaken,
  notFound,
  notRunning,
  notStopped,
  removed,
  startInterrupted,
} from "./refusals.ts";
import type { Stages, Work } from "./stages.ts";
import { viewOf } from "./view.ts";

const STOP_GRACE_MS = 10_000;
/** How long an ephemeral VM that a restarted daemon finds waits for its owner. */
const CLAIM_MS = 10_000;

/** How {@link Sandboxes.make} makes a VM. */
export interface Maker {
  name: string | undefined;
  /** Its first record, status `creating`. */
  record(id: string, dir: string): VmRecord;
  /** On return its agent answers and knows who it is. Nothing of it is left on failure. */
  bringUp(record: VmRecord, work: Work): Promise<LiveGuest>;
}

/** Start a VM's time limit, if it has one. */
function countFromNow(record: VmRecord): void {
  if (record.timeoutMs === undefined) return;
  record.timeoutAt = new Date(Date.now() + record.timeoutMs).toISOString();
}

/** The composer's public face; the daemon serves exactly this. */
export class Sandboxes {
  readonly entries = new Map<string, Entry>();
  /** VMs whose records cannot be read. */
  private readonly broken = new Map<string, BrokenRecord>();
  readonly records: VmRecords;
  readonly stages: Stages;
  readonly log: EventLog;
  /** Others that need images and kernels of the store. */
  otherUsers: () => ResourceUser[] = () => [];
  /** Wakes a sleeping VM. */
  wake: (entry: Entry) => Promise<void> = async () => await Promise.resolve();
  /** Forgets the memory of a sleeping VM. */
  forgetMemory: (record: VmRecord) => Promise<void> = async () => await Promise.resolve();

  constructor(records: VmRecords, stages: Stages, log: EventLog) {
    this.records = records;
    this.stages = stages;
    this.log = log;
  }

  /** Find the VMs that an earlier daemon left: adopt the living, clean up after the dead. */
  async recover(): Promise<void> {
    const { records, broken, empty } = await this.records.load();
    for (const one of broken) {
      this.log.error(`${one.id}: its record cannot be read: ${one.why}`);
      this.broken.set(one.id, one);
    }
    for (const id of empty) await this.records.remove(id);
    await Promise.all(records.map((record) => this.recoverOne(record)));
    const live = new Set([...records.map((record) => record.id), ...broken.map(({ id }) => id)]);
    const swept = await this.stages.sweep(live);
    for (const what of swept.removed) this.log.info(`removed ${what}, left by an earlier daemon`);
    for (const { what, why } of swept.failed) this.log.error(`cannot remove ${what}: ${why}`);
  }

  private async recoverOne(record: VmRecord): Promise<void> {
    const entry: Entry = { record, mutex: new Mutex(), holders: 0, watchers: new Set() };
    this.entries.set(record.id, entry);
    try {
      await this.settleIn(record);
      if (record.status === "creating") {
        this.log.info(`${record.id}: its creation was interrupted; removing it`);
        await this.discard(entry);
        return;
      }
      if (record.starting === true) {
        this.log.info(`${record.id}: its start was interrupted`);
        await this.settleDead(entry);
        return;
      }
      if (record.status === "suspended") return await this.recoverSleeping(record);
      if (record.status !== "running" && record.status !== "paused") return;
      const driver = this.stages.driver(record.driver);
      const running =
        record.process === undefined ? undefined : await driver.adopt(record.spec, record.process);
      if (running === undefined) {
        await this.settleDead(entry);
        return;
      }
      const channel = this.stages.openChannel(running, await this.records.token(record.id));
      const guest = { running, channel };
      await this.letGoOn(record, guest);
      this.watch(entry, guest);
      if (record.guestNetwork !== undefined) {
        const { networks } = this.stages;
        const reason = await networks.resume(record.id, record.policy, record.ports);
        if (reason !== undefined && reason !== record.networkReason) {
          record.networkReason = reason;
          await this.records.save(record);
        }
      }
      this.armTimeout(entry);
      if (record.ephemeral) this.awaitClaim(entry);
      this.log.info(`${record.id}: found running (pid ${running.process.pid})`);
    } catch (error) {
      this.log.error(`${record.id}: cannot take it up`, error);
    }
  }

  /** A sleeping VM: its process, if it has not been ended yet, is; its ports wake it. */
  private async recoverSleeping(record: VmRecord): Promise<void> {
    const { network } = record.spec;
    this.report(record.id, await endVmm(record, this.stages, undefined));
    await this.records.save(record);
    if (network === undefined || !this.stages.networks.isUp(record.id)) return;
    await this.stages.networks.resume(record.id, record.policy, record.ports);
  }

  /** What an earlier daemon held or had not finished mending goes on. */
  private async letGoOn(record: VmRecord, guest: LiveGuest): Promise<void> {
    const { mending, held, status } = record;
    if (mending === undefined && (held !== true || status === "paused")) return;
    await guest.running.resume();
    const limit = AbortSignal.timeout(this.stages.bootLimitMs(record.accelerator));
    if (mending === undefined) await thaw(guest);
    else await finishMending(record, guest, undefined, limit, this.log);
    delete record.held;
    await this.forgetMemory(record);
    await this.records.save(record);
  }

  /**
   * See to it that a record speaks of its own directory and of what is its own. Of a copy it is
   * saved before anything else: nothing that its original has may be taken for its own.
   */
  private async settleIn(record: VmRecord): Promise<void> {
    const { id, spec } = record;
    const dir = this.records.dir(id);
    const standing = standingOf(record, dir);
    if (standing === "own") return;
    this.log.info(`${id}: a ${standing === "copy" ? "copy of" : "VM moved from"} ${spec.dir}`);
    settleIn(record, dir, standing);
    if (standing === "copy") {
      await this.stages.networks.forget(id);
      await this.records.dropToken(id);
    }
    await this.records.save(record);
  }

  /**
   * Make a VM and wait until its agent answers.
   * @param onId called with the VM's ID before anything else is done
   * @throws ERR_VALIDATION_FLAGS when the name is taken; whatever a stage reports
   */
  async create(request: CreateRequest, work: Work, onId: (id: string) => void): Promise<VmView> {
    this.requireFreeName(request.name);
    const choice = await this.stages.chooseDriver(request.driver, request.host);
    checkIsolation(choice.driver, request.isolation, request.policy.mode !== "none");
    return await this.make(
      {
        name: request.name,
        record: (id, dir) => newRecord(id, dir, request, choice),
        bringUp: async (record, own) => {
          const since = performance.now();
          await prepareVm(record, request, this.stages, own);
          await this.records.save(record);
          record.timings["prepare"] = Math.round(performance.now() - since);
          return await this.bringUp(record, own);
        },
      },
      { ...work, ...(request.host && { host: request.host }) },
      onId,
    );
  }

  /**
   * Make a VM in the given way; whatever fails, nothing of it is left.
   * @param onId called with the VM's ID before anything else is done
   */
  async make(maker: Maker, work: Work, onId: (id: string) => void): Promise<VmView> {
    const { name } = maker;
    this.requireFreeName(name);
    const id = await this.claimId();
    try {
      // Others may have come meanwhile; from here to the entry nothing waits.
      this.requireFreeName(name);
    } catch (error) {
      await this.records.remove(id);
      throw error;
    }
    const busy = new AbortController();
    const signal = AbortSignal.any([work.signal, busy.signal]);
    const record = maker.record(id, this.records.dir(id));
    const entry: Entry = { record, mutex: new Mutex(), busy, holders: 0, watchers: new Set() };
    this.entries.set(id, entry);
    return await entry.mutex.run(async () => {
      try {
        await this.records.save(record);
        onId(id);
        const since = performance.now();
        const guest = await maker.bringUp(record, { ...work, signal });
        record.timings["total"] = Math.round(performance.now() - since);
        await this.nowRuns(entry, guest);
        return viewOf(record);
      } catch (error) {
        await this.discard(entry);
        if (signal.aborted) throw interrupted(id);
        throw error;
      } finally {
        delete entry.busy;
      }
    });
  }

  /** Boot a prepared VM. */
  private async bringUp(record: VmRecord, work: Work): Promise<LiveGuest> {
    const token = await this.records.token(record.id);
    return await bringUp(record, token, this.stages, work, () => this.records.save(record));
  }

  /** Note that a VM runs, and look after it from now on. */
  async nowRuns(entry: Entry, guest: LiveGuest): Promise<void> {
    const { record } = entry;
    record.status = "running";
    delete record.starting;
    delete record.error;
    delete record.stopReason;
    delete record.mending;
    record.startedAt = new Date().toISOString();
    countFromNow(record);
    await this.goesOn(entry, guest);
  }

  /** Note that a VM runs that has run before, and look after it from now on. */
  async goesOn(entry: Entry, guest: LiveGuest): Promise<void> {
    entry.record.status = "running";
    await this.records.save(entry.record);
    this.watch(entry, guest);
    this.armTimeout(entry);
    this.changed(entry);
  }

  /** Tell those who wait for a VM's change of state. */
  private changed(entry: Entry): void {
    for (const wake of entry.watchers) wake();
    entry.watchers.clear();
  }

  /** Resolves at a VM's next change of state. */
  async change(entry: Entry, signal: AbortSignal): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      entry.watchers.add(resolve);
      signal.addEventListener("abort", () => reject(signal.reason as Error), { once: true });
    });
  }

  /** Start a stopped VM, wake a sleeping one. @throws ERR_VM_NOT_STOPPED */
  async start(ref: string, work: Work): Promise<VmView> {
    const asleep = this.find(ref);
    if (asleep.record.status === "suspended") {
      await this.wake(asleep);
      return viewOf(asleep.record);
    }
    return await this.exclusively(ref, async (entry) => {
      const { record } = entry;
      // Its VMM may have died just now, and nobody has looked after it yet.
      if (viewOf(record).status !== record.status) await this.settleDead(entry);
      if (this.entries.get(record.id) !== entry) throw notFound(ref);
      if (record.status === "running" || record.status === "paused") {
        throw notStopped(`Cannot start ${ref}`, record, `Stop it first: vmsan stop ${ref}`);
      }
      const busy = new AbortController();
      entry.busy = busy;
      try {
        const choice = await this.stages.chooseDriver(record.driver, work.host);
        record.accelerator = choice.accelerator;
        record.driverReason = choice.reason;
        const signal = AbortSignal.any([work.signal, busy.signal]);
        const own: Work = { ...work, signal };
        // What this daemon makes now must be found by the next one, should it be killed.
        record.starting = true;
        await this.records.save(record);
        // This version's agent, not the one the VM was made with.
        Object.assign(record.spec, await this.stages.bootFiles(record.kernelFile, own));
        await this.nowRuns(entry, await this.bringUp(record, own));
        return viewOf(record);
      } catch (error) {
        record.status = "stopped";
        delete record.starting;
        await this.saveIfPossible(record);
        if (busy.signal.aborted) throw startInterrupted(ref);
        throw error;
      } finally {
        delete entry.busy;
      }
    });
  }

  /** Stop a VM: gracefully, and by force once the grace time is over. @throws ERR_VM_NOT_RUNNING */
  async stop(ref: string, graceMs: number = STOP_GRACE_MS): Promise<void> {
    await this.exclusively(ref, async (entry) => {
      if (entry.record.status === "suspended") return await this.endSleep(entry);
      if (entry.guest === undefined) throw notRunning(ref, entry.record);
      await this.powerOff(entry, graceMs);
    });
  }

  /** A sleeping VM is stopped: its memory is lost, its disk is as at a power cut. */
  private async endSleep(entry: Entry): Promise<void> {
    const { record } = entry;
    clearTimeout(entry.timeout);
    record.status = "stopped";
    delete record.timeoutAt;
    await this.records.save(record);
    this.report(record.id, await tearDown(record, this.stages, undefined));
    await this.forgetMemory(record);
    await this.records.save(record);
    this.changed(entry);
  }

  /** The guest's own shutdown, then the end of whatever is left. */
  async powerOff(entry: Entry, graceMs: number): Promise<void> {
    const { record, guest } = entry;
    if (guest === undefined) return;
    // Taken out first: the watcher must not take this end for a crash.
    delete entry.guest;
    clearTimeout(entry.timeout);
    if (graceMs > 0) {
      try {
        const limit = AbortSignal.timeout(graceMs);
        if (record.status === "paused") await guest.running.resume();
        await guest.channel.request("POST", "/v1/shutdown", {
          body: { graceMs: Math.max(1000, Math.floor(graceMs / 2)), reboot: false },
          signal: limit,
        });
        await Promise.race([
          guest.running.exited,
          new Promise((resolve) => limit.addEventListener("abort", resolve, { once: true })),
        ]);
      } catch (error) {
        this.log.info(`${record.id}: no graceful stop (${messageOf(error)}); ending it by force`);
      }
    }
    this.report(record.id, await tearDown(record, this.stages, guest));
    record.status = "stopped";
    delete record.timeoutAt;
    await this.saveIfPossible(record);
  }

  /**
   * Save what is so whether it can be saved or not (the disk may be full): the next daemon sees
   * for itself that nothing of the VM runs.
   */
  private async saveIfPossible(record: VmRecord): Promise<void> {
    try {
      await this.records.save(record);
    } catch (error) {
      this.log.error(`${record.id}: cannot save that it is ${record.status}`, error);
    }
  }

  /**
   * Remove a VM and all that is its own; nothing of another's.
   * A creation under way is ended first.
   * @throws ERR_VM_NOT_STOPPED for a running VM without `force`
   */
  async remove(ref: string, force: boolean): Promise<void> {
    if (force && this.broken.has(ref)) {
      this.report(ref, await removeDamaged(ref, this.records, this.stages));
      this.broken.delete(ref);
      return;
    }
    const entry = this.find(ref);
    const { record } = entry;
    // As users are told: one whose VMM has ended is stopped, also while that is cleaned up.
    const { status } = viewOf(record);
    if (!force && status !== "stopped" && status !== "error") {
      const fix = `Stop it first (vmsan stop ${ref}), or use --force.`;
      throw notStopped(`Cannot remove ${ref}`, record, fix);
    }
    entry.busy?.abort();
    await entry.mutex.run(async () => {
      if (this.entries.get(record.id) === entry) await this.discard(entry);
    });
  }

  /** Remove a VM whatever its state; what cannot be cleaned is logged. */
  async discard(entry: Entry): Promise<void> {
    const { record, guest } = entry;
    entry.removing = true;
    delete entry.guest;
    clearTimeout(entry.timeout);
    clearTimeout(entry.claim);
    this.report(record.id, await tearDown(record, this.stages, guest));
    try {
      await this.stages.releaseBase(record.id);
    } catch (error) {
      this.log.error(`${record.id}: cannot release its image`, error);
    }
    await this.records.remove(record.id);
    this.entries.delete(record.id);
    this.changed(entry);
  }

  /** Pause a running VM's CPUs. */
  async pause(ref: string): Promise<void> {
    await this.changeRunState(ref, "running", "paused", (guest) => guest.running.pause());
  }

  /** Let a paused VM go on, wake a sleeping one. */
  async resume(ref: string): Promise<void> {
    const entry = this.find(ref);
    if (entry.record.status === "suspended") return await this.wake(entry);
    await this.changeRunState(ref, "paused", "running", async (guest) => {
      await guest.running.resume();
      if (entry.record.held !== true) return;
      await thaw(guest);
      delete entry.record.held;
    });
  }

  private async changeRunState(
    ref: string,
    from: "running" | "paused",
    to: "running" | "paused",
    change: (guest: LiveGuest) => Promise<void>,
  ): Promise<void> {
    await this.exclusively(ref, async ({ guest, record }) => {
      if (guest === undefined || record.status !== from) throw notRunning(ref, record, from);
      await change(guest);
      record.status = to;
      await this.records.save(record);
    });
  }

  /** Put a new network policy in force. */
  async updatePolicy(ref: string, policy: NetworkPolicy): Promise<VmView> {
    return await this.exclusively(ref, async (entry) => {
      const { record } = entry;
      const changesCard = (policy.mode === "none") !== (record.policy.mode === "none");
      if (changesCard && entry.guest !== undefined) {
        throw new VmsanError({
          code: "ERR_VM_NOT_STOPPED",
          message: `Cannot change the network policy of ${ref} to ${policy.mode}`,
          why: "A network card can be added or taken away only while the VM is stopped.",
          fix: `Stop it first (vmsan stop ${ref}), or use deny-all.`,
        });
      }
      if (entry.guest !== undefined) await this.stages.networks.update(record.id, policy);
      record.policy = policy;
      await this.records.save(record);
      return viewOf(record);
    });
  }

  /**
   * Let a running VM's time limit count from now on; without a limit nothing changes.
   * @param limitMs another limit from now on, in milliseconds
   * @throws ERR_VM_NOT_RUNNING
   */
  async extendTimeout(ref: string, limitMs?: number): Promise<VmView> {
    return await this.exclusively(ref, async (entry) => {
      const { record } = entry;
      if (entry.guest === undefined || record.stopReason !== undefined) {
        throw notRunning(ref, record);
      }
      if (limitMs !== undefined) record.timeoutMs = limitMs;
      countFromNow(record);
      await this.records.save(record);
      this.armTimeout(entry);
      return viewOf(record);
    });
  }

  /** All VMs as they are now, oldest first. */
  list(): VmView[] {
    return [...this.entries.values()]
      .map(({ record }) => viewOf(record))
      .toSorted((a, b) => a.createdAt.localeCompare(b.createdAt) || a.id.localeCompare(b.id));
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

  /**
   * Keep an ephemeral VM for as long as the returned function has not been called.
   * Calling it as the last holder removes the VM.
   */
  hold(ref: string): () => Promise<void> {
    const entry = this.find(ref);
    entry.holders += 1;
    clearTimeout(entry.claim);
    let released = false;
    return async () => {
      if (released) return;
      released = true;
      entry.holders -= 1;
      if (entry.holders === 0) await this.removeAbandoned(entry);
    };
  }

  private async removeAbandoned(entry: Entry): Promise<void> {
    const { record } = entry;
    if (!record.ephemeral || entry.holders > 0 || this.entries.get(record.id) !== entry) return;
    try {
      await this.remove(record.id, true);
    } catch (error) {
      this.log.error(`${record.id}: cannot remove it after its owner has gone`, error);
    }
  }

  private awaitClaim(entry: Entry): void {
    entry.claim = setTimeout(() => void this.removeAbandoned(entry), CLAIM_MS);
  }

  /** Whether any VM runs or is being made. */
  get active(): boolean {
    return [...this.entries.values()].some(
      (entry) => entry.guest !== undefined || entry.busy !== undefined,
    );
  }

  /** Let go of all VMs without touching them: the next daemon finds them. */
  async letGo(): Promise<void> {
    for (const entry of this.entries.values()) {
      clearTimeout(entry.timeout);
      clearTimeout(entry.claim);
      entry.busy?.abort();
    }
    await Promise.all(
      [...this.entries.values()].map(async (entry) => {
        await entry.mutex.run(async () => entry.guest?.channel.close());
      }),
    );
  }

  /** Note a running guest and what to do when its VMM ends by itself. */
  watch(entry: Entry, guest: LiveGuest): void {
    entry.guest = guest;
    void guest.running.exited.then(async () => {
      await entry.mutex.run(async () => {
        if (entry.guest !== guest) return;
        await this.settleDead(entry);
      });
    });
  }

  /** The VMM of a VM that should run is gone: clean up and say so in its record. */
  async settleDead(entry: Entry): Promise<void> {
    const { record, guest } = entry;
    // Saving it would bring its directory back.
    if (entry.removing === true) return;
    delete entry.guest;
    clearTimeout(entry.timeout);
    this.log.info(`${record.id}: its VMM has ended`);
    try {
      this.report(record.id, await tearDown(record, this.stages, guest));
      if (record.ephemeral && entry.holders === 0) {
        await this.discard(entry);
        return;
      }
      // A guest that powered itself off is stopped, as a machine would be.
      record.status = "stopped";
      delete record.starting;
      delete record.timeoutAt;
      await this.records.save(record);
    } catch (error) {
      this.log.error(`${record.id}: cannot settle its end`, error);
    }
  }

  armTimeout(entry: Entry): void {
    const { record } = entry;
    clearTimeout(entry.timeout);
    if (record.timeoutAt === undefined) return;
    const left = Math.max(0, Date.parse(record.timeoutAt) - Date.now());
    entry.timeout = setTimeout(() => {
      this.log.info(`${record.id}: its time limit has passed; stopping it`);
      // Before anything of it ends: whoever sees that asks why.
      record.stopReason = "time-limit";
      this.stop(record.id).catch((error: unknown) => {
        if (entry.guest !== undefined) delete record.stopReason;
        this.log.error(`${record.id}: cannot stop it at its time limit`, error);
      });
    }, left);
  }

  report(id: string, failed: readonly { what: string; why: string }[]): void {
    for (const { what, why } of failed) this.log.error(`${id}: could not ${what}: ${why}`);
  }

  requireFreeName(name: string | undefined): void {
    if (name === undefined) return;
    for (const { record } of this.entries.values()) {
      if (record.name === name) throw nameTaken(name, record.id);
    }
  }

  /** A new ID with its directory. */
  private async claimId(): Promise<string> {
    for (;;) {
      const id = newVmId();
      if (!this.entries.has(id) && (await this.records.claim(id))) return id;
    }
  }

  /** Change a VM, one call at a time; nothing is changed, or saved, of one that is removed. */
  async exclusively<T>(ref: string, body: (entry: Entry) => Promise<T>): Promise<T> {
    const entry = this.find(ref);
    return await entry.mutex.run(async () => {
      if (entry.removing === true) throw notFound(ref);
      return await body(entry);
    });
  }

  find(ref: string): Entry {
    parseVmRef(ref);
    const broken = this.broken.get(ref);
    if (broken !== undefined) throw damaged(broken);
    const byId = this.entries.get(ref);
    if (byId !== undefined) return byId;
    for (const entry of this.entries.values()) if (entry.record.name === ref) return entry;
    throw notFound(ref);
  }
}
