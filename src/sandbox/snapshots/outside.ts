/**
 * What a memory holds on to outside of it: directories of the host and shared volumes, which stay as they are, and volumes. A
 * volume that the VM writes to is copied into the snapshot, as a disk of its own of whoever comes out of it;
 * one that it reads is referred to, and fits for as long as nobody has written to it.
 */
import { VmsanError } from "../../model/errors.ts";
import type { Mount } from "../../model/mount.ts";
import type { SnapshotRecord } from "../../model/snapshot.ts";
import type { VmRecord } from "../../model/vm.ts";
import { isVolume } from "../../snapshots/disks.ts";
import { stampOf } from "../../snapshots/files.ts";
import { bindsOf, servedOf, sharedOf, volumesOf } from "../starting/mounts.ts";
import type { Stages } from "../stages.ts";

/** What a snapshot says of a VM's mounts. @param memory false: of the disk alone, which knows of its own only */
export function keptMounts({ mounts = [] }: VmRecord, memory: boolean): { mounts?: Mount[] } {
  const kept = mounts.flatMap((mount): Mount[] => {
    const own = mount.kind === "anonymous" || mount.kind === "tmpfs";
    if (own || (mount.kind === "volume" && mount.copy === true)) return [mount];
    if (!memory) return [];
    const disk = mount.kind === "volume" && mount.shared !== true;
    return [disk && !mount.readonly ? { ...mount, copy: true as const } : mount];
  });
  return kept.length === 0 ? {} : { mounts: kept };
}

/**
 * Make sure that what a snapshot refers to is there, and fits its memory.
 * @param memory false: its disks boot, so that any state of a volume will do
 * @throws ERR_MOUNT_SOURCE, ERR_VOLUME_NOT_FOUND, ERR_VOLUME_IN_USE, ERR_SNAPSHOT_VOLUME
 */
export async function checkOutside(
  snapshot: SnapshotRecord,
  memory: boolean,
  stages: Stages,
): Promise<void> {
  await stages.shares.check(bindsOf(snapshot));
  for (const { name, readonly } of sharedOf(snapshot)) {
    await stages.volumes.directory(name, readonly);
  }
  for (const { name } of volumesOf(snapshot)) await stages.volumes.disk(name, true);
  if (!memory) return;
  for (const { path, volume } of snapshot.disks.filter(isVolume)) {
    if (volume?.stamp === (await stampOf(path))) continue;
    throw new VmsanError({
      code: "ERR_SNAPSHOT_VOLUME",
      message: `Cannot load the memory of ${snapshot.vm.name ?? snapshot.vm.id}`,
      why: `It has read the volume ${volume?.name ?? ""}, which has been written to since.`,
      fix:
        snapshot.id === ""
          ? "Try again."
          : `Boot a VM from its disk instead: vmsan create --snapshot ${snapshot.id} --cold.`,
    });
  }
}

/**
 * A volume with a name outlives VMs, and others rely on what is in it: it does not go back with one.
 * @throws ERR_SNAPSHOT_VOLUME
 */
export function requireNoWrittenVolume(ref: string, record: VmRecord, snapshot: string): void {
  const names = volumesOf(record)
    .filter(({ readonly }) => !readonly)
    .map(({ name }) => name);
  if (names.length === 0) return;
  throw new VmsanError({
    code: "ERR_SNAPSHOT_VOLUME",
    message: `Cannot take ${ref} back to ${snapshot}`,
    why: `It writes to the volume ${names.join(", ")}, which would have to go back with it; what is in a volume is not the VM's alone.`,
    fix: `Make another VM of it, with a copy of the volume as it was then: vmsan create --snapshot ${snapshot}`,
  });
}

/** What is referred to on this host leads nowhere on another one. @throws ERR_SNAPSHOT_SHARES */
export function requireNoShares(snapshot: SnapshotRecord): void {
  const [first] = servedOf(snapshot);
  if (first === undefined) return;
  const what = first.kind === "bind" ? first.source : `the shared volume ${first.name}`;
  throw new VmsanError({
    code: "ERR_SNAPSHOT_SHARES",
    message: `Cannot export ${snapshot.id}`,
    why: `Its memory has ${what} of this host open, which no other host has.`,
    fix: "Take a snapshot of the VM's disk alone (--disk-only), and export that.",
  });
}
