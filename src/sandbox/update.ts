/** More room, memory or processors for a VM that is there, or other labels. */
import type { UpdateRequest, VmView } from "../model/api.ts";
import { growDisk } from "../ext4/grow.ts";
import { VmsanError } from "../model/errors.ts";
import { formatBytes, invalid } from "../util/units.ts";
import type { Entry } from "./records/entry.ts";
import { viewOf } from "./records/view.ts";
import { notStopped } from "./refusals.ts";
import type { Sandboxes } from "./sandboxes.ts";
import type { Work } from "./stages.ts";

/**
 * Change a VM's size: of a running one the disk, where its driver can; of a stopped one everything. Its labels
 * may always be changed.
 * @throws ERR_VM_NOT_STOPPED, ERR_DRIVER_UNSUPPORTED, ERR_VALIDATION_DISK_SIZE, ERR_DISK_GROW
 */
export async function updateVm(
  sandboxes: Sandboxes,
  ref: string,
  request: UpdateRequest,
  work: Pick<Work, "signal">,
): Promise<VmView> {
  return await sandboxes.exclusively(ref, async (entry) => {
    const { record } = entry;
    const { diskSizeBytes, memMib, vcpus, labels } = request;
    const { status } = viewOf(record);
    const stopped = status === "stopped" || status === "error";
    if (!stopped && (memMib !== undefined || vcpus !== undefined)) {
      throw new VmsanError({
        code: "ERR_VM_NOT_STOPPED",
        message: `Cannot change the memory or processors of ${ref}`,
        why: `It is ${status}, and the machine of ${record.driver} gets neither after its start.`,
        fix: `Stop it first (vmsan stop ${ref}); only --disk grows while it runs.`,
      });
    }
    if (diskSizeBytes !== undefined && diskSizeBytes !== record.diskSizeBytes) {
      if (diskSizeBytes < record.diskSizeBytes) throw shrinks(record.diskSizeBytes, diskSizeBytes);
      if (stopped) await growStopped(entry, ref, diskSizeBytes);
      else {
        const what = `the disk of ${ref}`;
        const disk = { index: ownDisk(entry), what };
        await growRunning(sandboxes, entry, disk, diskSizeBytes, work.signal);
      }
      record.diskSizeBytes = diskSizeBytes;
    }
    if (memMib !== undefined) record.spec.memMib = memMib;
    if (vcpus !== undefined) record.spec.vcpus = vcpus;
    if (labels !== undefined) record.labels = labels;
    await sandboxes.records.save(record);
    sandboxes.events.vm("vm.updated", record, { diskSizeBytes, memMib, vcpus });
    return viewOf(record);
  });
}

/** Disks only grow. */
function shrinks(has: number, wanted: number): VmsanError {
  return invalid(
    "DISK_SIZE",
    "disk size",
    formatBytes(wanted),
    `The disk has ${formatBytes(has)} (${has} bytes), and disks only grow.`,
    "Ask for more.",
  );
}

/** Number of the VM's own disk. */
function ownDisk({ record }: Entry): number {
  return record.spec.disks.findIndex(({ role }) => role === "upper" || role === "root");
}

/** The disk of a VM without a process. */
async function growStopped(entry: Entry, ref: string, sizeBytes: number): Promise<void> {
  const disk = entry.record.spec.disks[ownDisk(entry)];
  if (disk === undefined) return;
  if ((disk.backing ?? []).length > 0) {
    throw new VmsanError({
      code: "ERR_DISK_GROW",
      message: `Cannot grow the disk of ${ref} while it is stopped`,
      why: "A snapshot has layers of it, and only a guest can grow the file system across them.",
      fix: `Start it first: vmsan start ${ref}`,
    });
  }
  await growDisk(disk.path, sizeBytes);
}

/**
 * A disk of a running VM: the device, then the file system in the guest.
 * @param disk which one, in words too, and where a volume is mounted
 * @throws ERR_VM_NOT_STOPPED, ERR_DRIVER_UNSUPPORTED
 */
export async function growRunning(
  sandboxes: Sandboxes,
  { record, guest }: Entry,
  disk: { index: number; what: string; target?: string },
  sizeBytes: number,
  signal: AbortSignal,
): Promise<void> {
  const { index, what, target } = disk;
  const ref = record.name ?? record.id;
  if (guest === undefined || record.status !== "running") {
    throw notStopped(`Cannot grow ${what}`, record, `Let it go on: vmsan resume ${ref}`);
  }
  if (!sandboxes.stages.driver(record.driver).capabilities.diskGrowth) {
    throw new VmsanError({
      code: "ERR_DRIVER_UNSUPPORTED",
      message: `Cannot grow ${what} while ${ref} runs`,
      why: `The driver ${record.driver} does that only while the VM is stopped.`,
      fix: `Stop it first: vmsan stop ${ref}`,
    });
  }
  await guest.running.growDisk(index, sizeBytes);
  await guest.channel.request("POST", "/v1/grow", {
    body: { sizeBytes, ...(target === undefined ? {} : { target }) },
    signal,
    idempotent: true,
  });
}
