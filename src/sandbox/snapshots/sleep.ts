/** VMs that sleep: their memory in files, no process; woken by whoever needs them. */
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { AgentChannel } from "../../agent/channel.ts";
import type { VmView } from "../../model/api.ts";
import { VmsanError, asVmsanError } from "../../model/errors.ts";
import type { SnapshotRecord } from "../../model/snapshot.ts";
import type { VmRecord } from "../../model/vm.ts";
import { giveDisk, removeUnused, shareDisk } from "../../snapshots/disks.ts";
import { share, syncFile } from "../../snapshots/files.ts";
import { freeze, thaw } from "../../snapshots/freeze.ts";
import { memoryFiles, memoryPaths, readMemoryImage, writeToken } from "../../snapshots/store.ts";
import type { SnapshotStore } from "../../snapshots/store.ts";
import { bootId } from "../../util/process-identity.ts";
import { tearDown } from "../starting/bring-up.ts";
import type { Entry } from "../records/entry.ts";
import { notRunning } from "../refusals.ts";
import { refuseShares } from "../shares.ts";
import { countFromNow } from "../lives.ts";
import type { Sandboxes } from "../sandboxes.ts";
import type { Work } from "../stages.ts";
import { viewOf } from "../records/view.ts";
import { bringBack, endVmm } from "./bring-back.ts";
import { checkMachine } from "./record.ts";

/** Where a sleeping VM's memory is, in its own directory. */
function memoryDir(record: VmRecord): string {
  return join(record.spec.dir, "memory");
}

/** Work that nobody waits for. */
const ALONE: Work = { signal: new AbortController().signal, progress: () => undefined };

/** Puts VMs to sleep and wakes them; rolls them back, which is waking with another memory. */
export class Sleep {
  private readonly sandboxes: Sandboxes;
  private readonly store: SnapshotStore;

  constructor(sandboxes: Sandboxes, store: SnapshotStore) {
    this.sandboxes = sandboxes;
    this.store = store;
    sandboxes.wake = async (entry) => await this.wakeUp(entry, ALONE);
    sandboxes.stages.networks.onArrival(async (vmId) => {
      const entry = sandboxes.entries.get(vmId);
      if (entry === undefined) return;
      entry.usedAt = Date.now();
      if (isAsleep(entry)) await this.wakeUp(entry, ALONE);
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
      refuseShares(record, "suspend");
      const { records, stages } = this.sandboxes;
      const driver = stages.driver(record.driver);
      if (!driver.capabilities.snapshots) throw cannotSleep(ref, record);
      work.progress({ phase: "suspend" });
      const dir = memoryDir(record);
      await rm(dir, { recursive: true, force: true });
      await mkdir(dir, { mode: 0o700 });
      const machine = await driver.machine();
      try {
        record.held = true;
        await records.save(record);
        await freeze(guest, false, work.signal);
        await guest.running.pause();
        await guest.running.snapshot(memoryPaths(dir), "full");
        await writeToken(dir, await records.token(record.id));
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
      const { files } = await readMemoryImage(dir);
      record.suspended = {
        at: new Date().toISOString(),
        machine,
        reason: "resume",
        bootId: bootId(),
      };
      await records.save(record);
      await this.endProcess(entry);
      // After a power cut, files that were not written back would pass for memory.
      for (const path of Object.values(files)) await syncFile(path);
      delete record.suspended.bootId;
      await records.save(record);
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

  /** End a VM's process without a trace; its network stays. */
  private async endProcess(entry: Entry): Promise<void> {
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

  /** Wake a sleeping VM; with its turn. */
  private async wakeNow(entry: Entry, work: Work): Promise<void> {
    const { record } = entry;
    const { stages, records, log } = this.sandboxes;
    const asleep = record.suspended;
    const fix = `Boot it from its disk: vmsan stop ${record.id}, then vmsan start ${record.id}. What was in its memory alone is lost.`;
    if (asleep === undefined || (asleep.bootId !== undefined && asleep.bootId !== bootId())) {
      throw new VmsanError({
        code: "ERR_SNAPSHOT_DAMAGED",
        message: `Cannot wake ${record.id}`,
        why: "Its memory was not written back before the host went down.",
        fix,
      });
    }
    checkMachine(record.id, asleep.machine, await stages.driver(record.driver).machine(), fix);
    const dir = memoryDir(record);
    record.mending = asleep.reason;
    try {
      const guest = await bringBack({
        record,
        token: await records.token(record.id),
        image: async () => await readMemoryImage(dir),
        attached: record.guestNetwork !== undefined && stages.networks.isUp(record.id),
        stages,
        work,
        log,
        save: async () => {
          // The guest may write to its disk from now on: its old memory fits no longer.
          record.status = "running";
          await records.save(record);
        },
      });
      countFromNow(record);
      await this.sandboxes.goesOn(entry, guest);
    } catch (error) {
      delete record.mending;
      if (record.status === "running") {
        this.sandboxes.report(record.id, await tearDown(record, stages, undefined));
        record.status = "stopped";
        record.error = asVmsanError(error, `Cannot wake ${record.id}`).toJSON();
        await this.forgetMemory(record);
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
    await rm(memoryDir(record), { recursive: true, force: true });
  }

  /**
   * Take a VM back to a snapshot of it: files and memory are as they were then. ID, name, labels,
   * policy and ports stay.
   * @throws ERR_SNAPSHOT_FOREIGN, ERR_SNAPSHOT_INCOMPATIBLE, ERR_SNAPSHOT_DAMAGED; nothing has changed then
   */
  async restore(ref: string, snapshotRef: string, work: Work): Promise<VmView> {
    return await this.sandboxes.exclusively(ref, async (entry) => {
      const { record } = entry;
      const { stages, records } = this.sandboxes;
      const snapshot = this.store.get(snapshotRef);
      if (snapshot.vm.id !== record.id && record.snapshot !== snapshot.id) {
        throw foreign(ref, snapshot);
      }
      if (!snapshot.memory) throw diskOnly(ref, snapshot);
      await this.store.verify(snapshot);
      const driver = stages.driver(record.driver);
      const machine = await driver.machine();
      const fix = `Make a VM of its disk instead: vmsan create --snapshot ${snapshot.id} --cold.`;
      checkMachine(snapshot.id, snapshot.machine, machine, fix);
      work.progress({ phase: "restore", message: snapshot.id });
      const from = this.store.dir(snapshot.id);
      const disks = await Promise.all(
        snapshot.disks.map(async (disk) =>
          disk.readonly
            ? await shareDisk(disk, from, record.spec.dir)
            : await giveDisk(disk, from, record.spec.dir, driver.capabilities.diskLayers),
        ),
      );
      const dir = memoryDir(record);
      await rm(dir, { recursive: true, force: true });
      await mkdir(dir, { mode: 0o700 });
      const { files, token } = await this.store.memoryOf(snapshot);
      for (const name of ["state", "memory"] as const) {
        await share(files[name], join(dir, memoryFiles[name]));
      }
      await writeToken(dir, token);
      // The one step after which the VM is as it was: until it wakes, it sleeps.
      record.spec.disks = disks;
      record.spec.memMib = snapshot.memMib;
      record.spec.vcpus = snapshot.vcpus;
      record.diskSizeBytes = snapshot.diskSizeBytes;
      record.snapshot = snapshot.id;
      record.suspended = { at: new Date().toISOString(), machine, reason: "restore" };
      record.status = "suspended";
      delete record.held;
      await records.save(record);
      await this.endProcess(entry);
      await removeUnused(record.spec.dir, disks);
      await this.wakeNow(entry, work);
      return viewOf(record);
    });
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

/** The snapshot is of another VM. */
function foreign(ref: string, snapshot: SnapshotRecord): VmsanError {
  return new VmsanError({
    code: "ERR_SNAPSHOT_FOREIGN",
    message: `Cannot take ${ref} back to ${snapshot.id}`,
    why: `That is a snapshot of ${snapshot.vm.name ?? snapshot.vm.id}, from which ${ref} was not made.`,
    fix: `Make a VM of it: vmsan create --snapshot ${snapshot.id}`,
  });
}

/** There is no memory to go back to. */
function diskOnly(ref: string, snapshot: SnapshotRecord): VmsanError {
  return new VmsanError({
    code: "ERR_SNAPSHOT_FIXED",
    message: `Cannot take ${ref} back to ${snapshot.id}`,
    why: "That is a snapshot of the disk alone.",
    fix: `Make a VM of it: vmsan create --snapshot ${snapshot.id}`,
  });
}
