/** VMs that sleep: their memory in files, no process; woken by whoever needs them. */
import { rm } from "node:fs/promises";
import type { AgentChannel } from "../../agent/channel.ts";
import type { VmView } from "../../model/api.ts";
import { VmsanError, asVmsanError } from "../../model/errors.ts";
import type { VmRecord } from "../../model/vm.ts";
import { freeze, thaw } from "../../snapshots/freeze.ts";
import { keepShares, memoryPaths, writeToken } from "../../snapshots/store.ts";
import { asPhase } from "../../util/flow/phases.ts";
import { bootId } from "../../util/process-identity.ts";
import { tearDown } from "../starting/bring-up.ts";
import { bindsOf, sharedOf } from "../starting/mounts.ts";
import type { Entry } from "../records/entry.ts";
import { notRunning } from "../refusals.ts";
import { startTimeLimit } from "../lives.ts";
import type { Sandboxes } from "../sandboxes.ts";
import type { Work } from "../stages.ts";
import { viewOf } from "../records/view.ts";
import { bringBack, endVmm } from "./bring-back.ts";
import { describeMemory, makeMemoryDir, readMemory, syncMemory, tidy } from "./memory.ts";
import { checkMachine } from "./record.ts";

/** Work that nobody can give up. */
const ALONE: Work = { signal: new AbortController().signal, progress: () => undefined };

/** Puts VMs to sleep and wakes them. */
export class Sleep {
  private readonly sandboxes: Sandboxes;

  constructor(sandboxes: Sandboxes) {
    this.sandboxes = sandboxes;
    sandboxes.wake = async (entry) => await this.wakeUp(entry, ALONE);
    sandboxes.stages.networks.onArrival(async (vmId) => {
      const entry = sandboxes.entries.get(vmId);
      if (entry === undefined) return undefined;
      entry.usedAt = Date.now();
      if (isAsleep(entry)) await this.wakeUp(entry, ALONE);
      const { status, startedAt } = entry.record;
      // While it boots, that is when it was started the time before.
      return status === "running" && startedAt !== undefined ? Date.parse(startedAt) : undefined;
    });
    sandboxes.suspend = async (entry) => void (await this.suspend(entry.record.id, ALONE));
    sandboxes.forgetMemory = async (record) => await this.forgetMemory(record);
  }

  /**
   * Put a running VM to sleep: its memory is written to files and its process ends. Its network
   * stays, and its published ports wake it.
   * @throws ERR_VM_NOT_RUNNING; on failure the VM goes on
   */
  async suspend(ref: string, work: Work): Promise<VmView> {
    return await this.sandboxes.exclusively(ref, async (entry) => {
      const { record, guest } = entry;
      if (guest === undefined || record.status !== "running") throw notRunning(ref, record);
      const { records, stages } = this.sandboxes;
      const driver = stages.driver(record.driver);
      if (!driver.capabilities.snapshots) throw cannotSleep(ref, record);
      work.progress({ phase: "suspend" });
      const machine = await driver.machine();
      const dir = await makeMemoryDir(record);
      let memory: Awaited<ReturnType<typeof describeMemory>>;
      try {
        record.held = true;
        await records.save(record);
        await asPhase("freeze", async () => await freeze(guest, false, work.signal));
        await guest.running.pause();
        await asPhase("memory", async () => await guest.running.snapshot(memoryPaths(dir), "full"));
        const shares = stages.shares.known(record);
        if (shares !== undefined) await keepShares(shares, dir);
        await writeToken(dir, await records.token(record.id));
        memory = await describeMemory(dir);
      } catch (error) {
        await this.goOn(entry);
        await rm(dir, { recursive: true, force: true });
        throw error;
      }
      // From here on its memory is what the files hold; the process is only in the way.
      delete record.held;
      record.status = "suspended";
      // A sleeping VM takes nothing: its time limit counts anew once it is awake.
      clearTimeout(entry.timeout);
      delete record.timeoutAt;
      record.suspended = {
        at: new Date().toISOString(),
        ...memory,
        machine,
        reason: "resume",
        bootId: bootId(),
      };
      await records.save(record);
      await this.endProcess(entry);
      // After a power cut, files that were not written back would pass for memory.
      await asPhase("sync", async () => await syncMemory(record));
      await records.save(record);
      this.sandboxes.events.vm("vm.suspended", record);
      return viewOf(record);
    });
  }

  /** After a failure: let the VM go on. */
  private async goOn(entry: Entry): Promise<void> {
    const { record, guest } = entry;
    delete record.held;
    try {
      await guest?.running.resume();
      if (guest !== undefined) await thaw(guest);
    } catch (error) {
      this.sandboxes.log.error(`${record.id}: cannot let it go on`, error);
    }
    await this.sandboxes.records.save(record);
  }

  /** End a VM's process without a trace; its network stays. With its turn. */
  async endProcess(entry: Entry): Promise<void> {
    const { record, guest } = entry;
    // Taken out first: the watcher must not take this end for a crash.
    delete entry.guest;
    this.sandboxes.report(record.id, await endVmm(record, this.sandboxes.stages, guest));
    await this.sandboxes.records.save(record);
  }

  /** Wake a VM, if it sleeps. @throws ERR_SNAPSHOT_INCOMPATIBLE …; it sleeps on then */
  async wake(ref: string, work: Work): Promise<VmView> {
    const entry = this.sandboxes.find(ref);
    await this.wakeUp(entry, work);
    return viewOf(entry.record);
  }

  private async wakeUp(entry: Entry, work: Work): Promise<void> {
    await entry.mutex.run(async () => {
      if (entry.removing !== true && isAsleep(entry)) await this.wakeNow(entry, work);
    });
  }

  /**
   * Wake a sleeping VM; with its turn. Who asked for it cannot stop it: a VM that has begun to run
   * could not go back to sleep.
   */
  async wakeNow(entry: Entry, { progress }: Work): Promise<void> {
    const { record } = entry;
    const { stages, records, log } = this.sandboxes;
    const fix = `Boot it from its disk: vmsan stop ${record.id}, then vmsan start ${record.id}. What was in its memory alone is lost.`;
    const { image, asleep } = await readMemory(record, fix);
    await stages.shares.check(bindsOf(record));
    for (const { name, readonly } of sharedOf(record)) {
      await stages.volumes.directory(name, readonly);
    }
    checkMachine(record.id, asleep.machine, await stages.driver(record.driver).machine(), fix);
    record.mending = asleep.reason;
    try {
      const guest = await bringBack({
        record,
        token: await records.token(record.id),
        image: async () => await Promise.resolve(image),
        attached: record.guestNetwork !== undefined && stages.networks.isUp(record.id),
        stages,
        work: { ...ALONE, progress },
        log,
        save: async () => {
          // The guest may write to its disk from now on: its old memory fits no longer.
          record.status = "running";
          await records.save(record);
        },
      });
      startTimeLimit(record, new Date());
      await this.sandboxes.goesOn(entry, guest);
      const type = asleep.reason === "restore" ? "vm.restored" : "vm.woken";
      this.sandboxes.events.vm(type, record, { snapshot: record.snapshot });
    } catch (error) {
      delete record.mending;
      if (record.status === "running") {
        this.sandboxes.report(record.id, await tearDown(record, stages, undefined));
        record.status = "stopped";
        record.error = asVmsanError(error, `Cannot wake ${record.id}`).toJSON();
        await this.forgetMemory(record);
        this.sandboxes.events.vm("vm.stopped", record, { reason: "not-woken" });
        this.sandboxes.changed(entry);
      }
      await records.save(record);
      throw error;
    }
    await this.forgetMemory(record);
    await records.save(record);
  }

  /** Remove the files of a VM's memory; the record is the caller's to keep. */
  private async forgetMemory(record: VmRecord): Promise<void> {
    delete record.suspended;
    delete record.mending;
    await tidy(record);
  }

  /**
   * The channel to a VM's agent.
   * @param wake a sleeping VM is woken; else its waking is waited for
   * @throws ERR_VM_NOT_RUNNING
   */
  async channel(ref: string, wake: boolean, signal: AbortSignal): Promise<AgentChannel> {
    const entry = this.sandboxes.find(ref);
    entry.usedAt = Date.now();
    for (;;) {
      signal.throwIfAborted();
      if (isAsleep(entry)) {
        if (wake) await this.wakeUp(entry, ALONE);
        else await this.sandboxes.change(entry, signal);
        continue;
      }
      // It may be on its way to sleep, or out of it.
      if (entry.guest === undefined) await entry.mutex.run(async () => await Promise.resolve());
      if (isAsleep(entry)) continue;
      return this.sandboxes.channel(entry.record.id);
    }
  }
}

/** Whether a VM sleeps at this moment. */
function isAsleep({ record }: Entry): boolean {
  return record.status === "suspended";
}

/** The driver keeps no memory. */
function cannotSleep(ref: string, record: VmRecord): VmsanError {
  return new VmsanError({
    code: "ERR_DRIVER_UNSUPPORTED",
    message: `Cannot suspend ${ref}`,
    why: `The driver ${record.driver} keeps no memory.`,
    fix: `Stop it instead: vmsan stop ${ref}`,
  });
}
