/** A VM back in the state of a snapshot: it falls asleep with that one's memory and disks, and wakes. */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import type { VmView } from "../../model/api.ts";
import { VmsanError } from "../../model/errors.ts";
import type { SnapshotRecord } from "../../model/snapshot.ts";
import type { MachineIdentity, VmRecord } from "../../model/vm.ts";
import { giveDisks } from "../../snapshots/disks.ts";
import { share } from "../../snapshots/files.ts";
import { keepShares, memoryFiles, writeToken, type SnapshotStore } from "../../snapshots/store.ts";
import { asPhase } from "../../util/flow/phases.ts";
import type { Sandboxes } from "../sandboxes.ts";
import type { Work } from "../stages.ts";
import { requireFreeVolumes } from "../records/volume-users.ts";
import { viewOf } from "../records/view.ts";
import { describeMemory, makeMemoryDir, tidy } from "./memory.ts";
import { checkOutside, requireNoWrittenVolume } from "./outside.ts";
import { checkMachine } from "./record.ts";
import type { Sleep } from "./sleep.ts";

/** What going back needs. */
export interface RollBack {
  sandboxes: Sandboxes;
  sleep: Sleep;
  store: SnapshotStore;
}

/**
 * Take a VM back to a snapshot of it: files and memory are as they were then. ID, name, labels,
 * policy and ports stay, and so do directories of the host.
 * @throws ERR_SNAPSHOT_FOREIGN, ERR_SNAPSHOT_VOLUME, ERR_VOLUME_IN_USE, ERR_MOUNT_SOURCE, ERR_SNAPSHOT_INCOMPATIBLE, ERR_SNAPSHOT_DAMAGED; nothing has changed then
 */
export async function rollBack(
  { sandboxes, sleep, store }: RollBack,
  ref: string,
  snapshotRef: string,
  work: Work,
): Promise<VmView> {
  const { id } = store.get(snapshotRef);
  return await sandboxes.exclusively(ref, async (entry) => {
    await store.lockOf(id).shared(async () => {
      const snapshot = store.get(id);
      const machine = await asPhase(
        "check",
        async () => await check({ sandboxes, store }, entry.record, ref, snapshot),
      );
      work.progress({ phase: "restore", message: id });
      await asPhase("disk and memory", async () => {
        await layOut({ sandboxes, store }, entry.record, { snapshot, machine }, work.signal);
      });
    });
    const { record } = entry;
    record.status = "suspended";
    delete record.held;
    clearTimeout(entry.timeout);
    delete record.timeoutAt;
    await sleep.endProcess(entry);
    // Its guest resets its ends in silence, as does every clone's: whoever only reads would wait for ever.
    sandboxes.stages.networks.cut(record.id);
    await tidy(record);
    await sleep.wakeNow(entry, work);
    return viewOf(record);
  });
}

/** Refuse what cannot be. @returns the machine that the VM comes back on */
async function check(
  { sandboxes, store }: Omit<RollBack, "sleep">,
  record: VmRecord,
  ref: string,
  snapshot: SnapshotRecord,
): Promise<MachineIdentity> {
  if (snapshot.vm.id !== record.id && record.snapshot !== snapshot.id) {
    throw foreign(ref, snapshot);
  }
  if (!snapshot.memory) throw diskOnly(ref, snapshot);
  if (snapshot.card !== hasCard(record)) throw anotherCard(ref, snapshot);
  requireNoWrittenVolume(ref, record, snapshot.id);
  requireFreeVolumes(sandboxes.entries.values(), record.id, record.mounts);
  await checkOutside(snapshot, true, sandboxes.stages);
  await store.verify(snapshot);
  const fix = `Make a VM of its disk instead: vmsan create --snapshot ${snapshot.id} --cold.`;
  const machine = await sandboxes.stages.driver(record.driver).machine();
  checkMachine(snapshot.id, snapshot.machine, machine, fix);
  return machine;
}

/** Lay a snapshot's memory and disks beside what the VM has, and make the VM one that sleeps with these. */
async function layOut(
  { sandboxes, store }: Omit<RollBack, "sleep">,
  record: VmRecord,
  { snapshot, machine }: { snapshot: SnapshotRecord; machine: MachineIdentity },
  signal: AbortSignal,
): Promise<void> {
  const driver = sandboxes.stages.driver(record.driver);
  const from = store.dir(snapshot.id);
  const { dir } = record.spec;
  // Beside what it has: until the record says otherwise, that is what it is.
  const memory = await makeMemoryDir(record);
  try {
    const { diskLayers } = driver.capabilities;
    const disks = await giveDisks(snapshot.disks, from, dir, diskLayers, signal);
    const { files, token, shares } = await store.memoryOf(snapshot);
    for (const name of ["state", "memory"] as const) {
      await share(files[name], join(memory, memoryFiles[name]));
    }
    if (shares !== undefined) await keepShares(shares, memory);
    await writeToken(memory, token);
    const suspended = {
      at: new Date().toISOString(),
      ...(await describeMemory(memory)),
      machine,
      reason: "restore" as const,
    };
    signal.throwIfAborted();
    // The one step after which the VM is as it was: until it wakes, it sleeps.
    const { memMib, vcpus, diskSizeBytes } = snapshot;
    const spec = { ...record.spec, disks, memMib, vcpus };
    const next = { spec, diskSizeBytes, snapshot: snapshot.id, suspended };
    await sandboxes.records.save({ ...record, ...next, status: "suspended", held: false });
    Object.assign(record, next);
  } catch (error) {
    await rm(memory, { recursive: true, force: true });
    await tidy(record);
    throw error;
  }
}

/** Whether a VM has a network card: one whose policy asks for it has none where its host offers no networks. */
function hasCard({ status, spec, policy }: VmRecord): boolean {
  if (status === "running" || status === "paused") return spec.network !== undefined;
  return policy.mode !== "none";
}

/** A card that a VM has got, or lost, since. */
function anotherCard(ref: string, snapshot: SnapshotRecord): VmsanError {
  const [then, now] = snapshot.card ? ["had a", "has none"] : ["had no", "has one"];
  return new VmsanError({
    code: "ERR_SNAPSHOT_FIXED",
    message: `Cannot take ${ref} back to ${snapshot.id}`,
    why: `It ${then} network card then and ${now} now, and cards are part of the machine.`,
    fix: `Make a VM of it: vmsan create --snapshot ${snapshot.id}. Or give ${ref} the network that it had: vmsan stop ${ref}, then vmsan network ${ref}.`,
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
