/**
 * Who uses a volume. There is no list of leases that could be wrong: a VM holds what its record
 * names for as long as it runs, sleeps, or is being started, whichever process is killed when.
 */
import { VmsanError } from "../../model/errors.ts";
import type { VolumeMount } from "../../model/mount.ts";
import type { VmRecord } from "../../model/vm.ts";
import type { Entry } from "./entry.ts";
import { sharedOf, volumesOf } from "../starting/mounts.ts";
import { viewOf } from "./view.ts";

/** How a VM mounts a volume; undefined when it does not. */
function mountOf(record: VmRecord, name: string): VolumeMount | undefined {
  return [...volumesOf(record), ...sharedOf(record)].find((mount) => mount.name === name);
}

/** Whether a VM may touch its volumes now. */
function holds({ record }: Entry): boolean {
  // As it is, not as it was noted: one whose VMM has been killed writes no more.
  const { status } = viewOf(record);
  return record.starting === true || (status !== "stopped" && status !== "error");
}

/** The VMs that mount a volume, also stopped ones. */
export function volumeUsers(entries: Iterable<Entry>, name: string): VmRecord[] {
  return [...entries].map(({ record }) => record).filter((record) => mountOf(record, name));
}

/** The VMs that hold a volume now, and whether one of them may write. */
export function volumeHolders(
  entries: Iterable<Entry>,
  name: string,
): { records: VmRecord[]; written: boolean } {
  const records = volumeUsers([...entries].filter(holds), name);
  return { records, written: records.some((record) => mountOf(record, name)?.readonly === false) };
}

/**
 * Refuse volumes that others hold: one VM writes, or many read. Shared ones may be held by anybody.
 * @param self the VM that wants them
 * @throws ERR_VOLUME_IN_USE
 */
export function requireFreeVolumes(
  entries: Iterable<Entry>,
  self: string | undefined,
  mounts: VmRecord["mounts"],
): void {
  const others = [...entries].filter(({ record }) => record.id !== self);
  for (const mount of volumesOf({ ...(mounts && { mounts }) })) {
    const { records, written } = volumeHolders(others, mount.name);
    if (records.length === 0 || (mount.readonly && !written)) continue;
    throw volumeInUse(
      `Cannot mount the volume ${mount.name}${mount.readonly ? "" : " for writing"}`,
      records,
      written ? "may write to it" : "reads it",
      `Stop that VM first; or mount it read-only everywhere (-v ${mount.name}:${mount.target}:ro); or have it be for several writers, once nobody uses it: vmsan volume share ${mount.name}`,
    );
  }
}

/** The error of a volume that others use. */
export function volumeInUse(
  message: string,
  users: readonly VmRecord[],
  how: string,
  fix: string,
): VmsanError {
  const names = users.map(({ id, name }) => name ?? id);
  const why = `${names.join(", ")} ${how}.`;
  return new VmsanError({ code: "ERR_VOLUME_IN_USE", message, why, fix, details: { vms: names } });
}
