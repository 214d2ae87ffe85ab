/** What becomes of a VM once it runs: its time limit, its owner, and every way in which it ends. */
import { messageOf } from "../model/errors.ts";
import type { EndAction, VmRecord } from "../model/vm.ts";
import { thaw } from "../snapshots/freeze.ts";
import { asPhase } from "../util/flow/phases.ts";
import { abortable } from "../util/flow/abortable.ts";
import { tearDown } from "./starting/bring-up.ts";
import { sharedOf, volumesOf } from "./starting/mounts.ts";
import type { LiveGuest } from "./starting/await-guest.ts";
import { removeDamaged } from "./records/damaged.ts";
import type { Entry } from "./records/entry.ts";
import { notRunning, notStopped } from "./refusals.ts";
import { VmTable } from "./table.ts";
import { viewOf } from "./records/view.ts";

const STOP_GRACE_MS = 10_000;
/** How long a guest may take to write out what it has of volumes, before its VM goes by force. */
const CLOSE_MS = 30_000;
/** How long an ephemeral VM that a restarted daemon finds waits for its owner. */
const CLAIM_MS = 10_000;

/**
 * Whether a VM may write to volumes. Its guest is ended by its own hand, however suddenly: volumes outlive it, a command that
 * has ended without an error has left its files there, and readers take no file system that nobody has let go of.
 */
function writesVolumes(record: VmRecord): boolean {
  return [...volumesOf(record), ...sharedOf(record)].some(({ readonly }) => !readonly);
}

/** Start a VM's time limit, if it has one. @param from the instant it counts from */
export function startTimeLimit(record: VmRecord, from: Date): void {
  if (record.timeoutMs === undefined) return;
  record.timeoutAt = new Date(from.getTime() + record.timeoutMs).toISOString();
}

/** VMs that are looked after from the moment they run. */
export class Lives extends VmTable {
  /** Forgets the memory of a sleeping VM. */
  forgetMemory: (record: VmRecord) => Promise<void> = async () => await Promise.resolve();

  /** Note that a VM runs, and look after it from now on. */
  async nowRuns(entry: Entry, guest: LiveGuest): Promise<void> {
    const { record } = entry;
    record.status = "running";
    delete record.starting;
    delete record.error;
    delete record.stopReason;
    delete record.mending;
    // One reading of the clock for both: what runs for ten minutes ends ten minutes after its start.
    const now = new Date();
    record.startedAt = now.toISOString();
    startTimeLimit(record, now);
    await this.goesOn(entry, guest);
    const { driver, accelerator, timings, image, runtime, snapshot } = record;
    const seconds = (timings["total"] ?? 0) / 1000;
    const source = image?.name ?? runtime;
    this.events.vm("vm.started", record, { driver, accelerator, seconds, image: source, snapshot });
  }

  /** Note that a VM runs that has run before, and look after it from now on. */
  async goesOn(entry: Entry, guest: LiveGuest): Promise<void> {
    entry.record.status = "running";
    await this.records.save(entry.record);
    this.watch(entry, guest);
    this.armTimeout(entry);
    this.changed(entry);
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
      delete record.held;
      await this.forgetMemory(record);
      await this.records.save(record);
      this.events.vm("vm.stopped", record, { reason: record.stopReason ?? "ended" });
      this.changed(entry);
    } catch (error) {
      this.log.error(`${record.id}: cannot settle its end`, error);
    }
  }

  /** Stop a VM once its time limit has passed, if it has one. */
  armTimeout(entry: Entry): void {
    const { record } = entry;
    clearTimeout(entry.timeout);
    if (record.timeoutAt === undefined) return;
    const left = Math.max(0, Date.parse(record.timeoutAt) - Date.now());
    entry.timeout = setTimeout(() => {
      const action = record.onTimeout ?? "stop";
      this.log.info(`${record.id}: its time limit has passed; ${action}`);
      // Before anything of it ends: whoever sees that asks why.
      if (action !== "suspend") record.stopReason = "time-limit";
      this.end(entry, action).catch((error: unknown) => {
        if (entry.guest !== undefined) delete record.stopReason;
        this.log.error(`${record.id}: cannot ${action} it at its time limit`, error);
      });
    }, left);
  }

  /** Do with a VM what is to be done with it when its time is over. */
  async end(entry: Entry, action: EndAction): Promise<void> {
    const { id } = entry.record;
    if (action === "remove") return await this.remove(id, true);
    if (action === "stop") return await this.stop(id);
    if (entry.guest !== undefined) await this.suspend(entry);
  }

  /** Puts a VM to sleep. */
  suspend: (entry: Entry) => Promise<void> = async () => await Promise.resolve();

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

  /** Give an ephemeral VM that was found without its owner time to be claimed. */
  awaitClaim(entry: Entry): void {
    entry.claim = setTimeout(() => void this.removeAbandoned(entry), CLAIM_MS);
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
    this.events.vm("vm.stopped", record, { reason: "asked" });
    this.changed(entry);
  }

  /** Have a guest shut itself down. @param limitMs until that is given up @param graceMs of its processes */
  private async shutDown(
    record: VmRecord,
    guest: LiveGuest,
    limitMs: number,
    graceMs: number,
  ): Promise<void> {
    const limit = AbortSignal.timeout(limitMs);
    const ask = async (): Promise<void> => {
      if (record.status === "paused") await guest.running.resume();
      if (record.held === true) await thaw(guest);
      const body = { graceMs, reboot: false };
      await guest.channel.request("POST", "/v1/shutdown", { body, signal: limit });
      await guest.running.exited;
    };
    try {
      // All of it: a guest need not answer to anything.
      await asPhase("shut down", async () => await abortable(ask(), limit));
    } catch (error) {
      this.log.info(`${record.id}: no graceful stop (${messageOf(error)}); ending it by force`);
    }
  }

  /** The guest's own shutdown, then the end of whatever is left. */
  async powerOff(entry: Entry, graceMs: number): Promise<void> {
    const { record, guest } = entry;
    if (guest === undefined) return;
    // Taken out first: the watcher must not take this end for a crash.
    delete entry.guest;
    clearTimeout(entry.timeout);
    const writes = writesVolumes(record);
    if (graceMs > 0 || writes) {
      const processesMs = graceMs > 0 ? Math.max(1000, Math.floor(graceMs / 2)) : 0;
      await this.shutDown(
        record,
        guest,
        writes ? Math.max(graceMs, CLOSE_MS) : graceMs,
        processesMs,
      );
    }
    this.report(record.id, await tearDown(record, this.stages, guest));
    record.status = "stopped";
    delete record.timeoutAt;
    delete record.held;
    await this.saveIfPossible(record);
    this.events.vm("vm.stopped", record, { reason: record.stopReason ?? "asked" });
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
    if (guest !== undefined && writesVolumes(record)) {
      await this.shutDown(record, guest, CLOSE_MS, 0);
    }
    this.report(record.id, await tearDown(record, this.stages, guest));
    try {
      await asPhase("release its image", async () => await this.stages.releaseBase(record.id));
    } catch (error) {
      this.log.error(`${record.id}: cannot release its image`, error);
    }
    await asPhase("remove its files", async () => await this.records.remove(record.id));
    this.entries.delete(record.id);
    this.events.vm("vm.removed", record);
    this.changed(entry);
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
}
