/**
 * VMs whose directory was copied (a backup, a clone of the host, `cp -a`) or moved: their record
 * speaks of processes, networks, control groups and user ids that are the original's.
 */
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { dirname } from "node:path";
import type { VmRecord } from "../../model/vm.ts";
import { isSameDirectory, worksInNamesake } from "../../util/files/directory.ts";

/**
 * Whose the things are that a record speaks of: `own`, this directory's; `moved`, this
 * directory's when it had another name; `copy`, those of the directory that it was copied from.
 */
export type Standing = "own" | "moved" | "copy";

/** How a record stands to the directory that it was found in. @param dir absolute path of that */
export function standingOf(record: VmRecord, dir: string): Standing {
  // The original was moved, and a copy put in its place.
  if (record.process !== undefined && worksInNamesake(record.process.pid, dir)) return "copy";
  if (isSameDirectory(record.spec.dir, dir)) return "own";
  return existsSync(record.spec.dir) ? "copy" : "moved";
}

/** A function that leads paths of an installation, and of a VM's directory, to where they are now. */
function relocation(from: string, to: string): (path: string) => string {
  const roots: [string, string][] = [[from, to]];
  const [oldRoot, newRoot] = [dirname(dirname(from)), dirname(dirname(to))];
  if (oldRoot !== "/") roots.push([oldRoot, newRoot]);
  return (path) => {
    for (const [old, now] of roots) {
      if (path === old || path.startsWith(`${old}/`)) return now + path.slice(old.length);
    }
    return path;
  };
}

/**
 * Make a record that of a stopped VM in `dir`: its files are those here, and whatever runs for it
 * is found by its place alone. A copy forgets what is its original's, and gets another name on the
 * host, where the two would meet.
 */
export function settleIn(record: VmRecord, dir: string, standing: Standing): void {
  const { spec } = record;
  const here = relocation(spec.dir, dir);
  spec.dir = dir;
  spec.kernel = here(spec.kernel);
  spec.initramfs = here(spec.initramfs);
  for (const disk of spec.disks) {
    disk.path = here(disk.path);
    if (disk.backing !== undefined) disk.backing = disk.backing.map(here);
  }
  if (record.kernelFile !== undefined) record.kernelFile = here(record.kernelFile);
  delete record.process;
  delete record.timeoutAt;
  delete record.starting;
  delete record.held;
  if (record.status === "suspended") record.status = "stopped";
  if (standing !== "copy") return;
  spec.hostId = `${spec.id}-${randomBytes(4).toString("hex")}`;
  delete spec.network;
  delete record.guestNetwork;
  delete record.networkReason;
  delete record.secrets;
}
