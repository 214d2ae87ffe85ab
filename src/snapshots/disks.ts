/** Disks of snapshots: frozen under a VM that goes on, and given to VMs made from them. */
import { randomBytes } from "node:crypto";
import { open, readdir, rm, stat } from "node:fs/promises";
import { basename, isAbsolute, join } from "node:path";
import type { DiskAttachment } from "../model/vm.ts";
import { together } from "../util/flow/together.ts";
import { allocatedBytes, canReflink, copySparse, reflink, share, stampOf } from "./files.ts";
import { emptyQcow2, virtualSize } from "./qcow2.ts";

/** A disk that occupies less than this is copied rather than layered: as fast, and simpler. */
const COPIED_BYTES = 24 << 20;
/** Longest chain of layers; the next one is a copy. */
const MAX_LAYERS = 16;

/** Whether a disk is a volume's: none of the VM's own, and gone from it with each stop. */
export function isVolume(disk: DiskAttachment): boolean {
  return disk.role === "data" && disk.volume?.copy !== true;
}

/** What was copied of a volume is that volume no longer. */
export function asCopy(disk: DiskAttachment): DiskAttachment {
  return disk.volume === undefined ? disk : { ...disk, volume: { ...disk.volume, copy: true } };
}

/** Whether the disk is the VM's own, as opposed to a volume or one that others share. */
export function isOwn(disk: DiskAttachment): boolean {
  return !disk.readonly && !isVolume(disk);
}

/** How the newest layer of a disk gets into a second place. */
export type Method = "reflink" | "copy" | "overlay";

/**
 * How to take a disk's newest layer, or a volume, which is a raw file and stays one.
 * @param dir where the copy will be
 * @param overlays whether the VMM takes disks in layers
 */
export async function chooseMethod(
  disk: DiskAttachment,
  dir: string,
  overlays: boolean,
): Promise<Method> {
  // It may lie on another file system; copying shares blocks too where it does not.
  if (isVolume(disk)) return "copy";
  if (await canReflink(dir)) return "reflink";
  if ((await allocatedBytes(disk.path)) <= COPIED_BYTES) return "copy";
  return overlays && (disk.backing ?? []).length < MAX_LAYERS ? "overlay" : "copy";
}

/** A volume's disk as a snapshot that only refers to it notes it. */
export async function withStamp(disk: DiskAttachment): Promise<DiskAttachment> {
  const { volume } = disk;
  return volume === undefined
    ? disk
    : { ...disk, volume: { ...volume, stamp: await stampOf(disk.path) } };
}

/** Size of the disk that a guest sees. */
async function sizeOf(disk: DiskAttachment): Promise<number> {
  const layered = (disk.backing ?? []).length > 0;
  return layered ? await virtualSize(disk.path) : (await stat(disk.path)).size;
}

/** A new name in a VM's directory for a layer of a disk. */
function layerPath(dir: string, disk: DiskAttachment, extension: string): string {
  return join(dir, `${disk.role}-${randomBytes(4).toString("hex")}.${extension}`);
}

/** `ext4` for the lowest, raw layer, else `qcow2`. */
function extensionOf(layer: number): string {
  return layer === 0 ? "ext4" : "qcow2";
}

/** The disk with a new, empty layer on top, which is made in `dir`. Nothing of it is copied. */
export async function withLayer(disk: DiskAttachment, dir: string): Promise<DiskAttachment> {
  const path = layerPath(dir, disk, "qcow2");
  const image = emptyQcow2(await sizeOf(disk));
  const handle = await open(path, "wx", 0o600);
  try {
    await handle.write(image);
  } finally {
    await handle.close();
  }
  return { ...disk, path, backing: [...(disk.backing ?? []), disk.path] };
}

/**
 * Put a disk into a snapshot. Its lower layers and, with `overlay`, the newest one are shared: the
 * VM must write to another layer by then. Otherwise the VM must stand still.
 * @param index of the disk, for the names
 * @returns the disk with names of the snapshot's files
 */
export async function keepDisk(
  disk: DiskAttachment,
  index: number,
  dir: string,
  method: Method,
): Promise<DiskAttachment> {
  const layers = [...(disk.backing ?? []), disk.path];
  const names = layers.map((_path, layer) => `disk${index}-${layer}.${extensionOf(layer)}`);
  for (const [layer, path] of layers.entries()) {
    const to = join(dir, names[layer] ?? "");
    if (layer < layers.length - 1 || method === "overlay") await share(path, to);
    else await (method === "reflink" ? reflink(path, to) : copySparse(path, to));
  }
  const backing = names.slice(0, -1);
  return { ...disk, path: names.at(-1) ?? "", ...(backing.length === 0 ? {} : { backing }) };
}

/**
 * A disk of a snapshot for a VM, which may write to it.
 * @param from the snapshot's directory
 * @param dir the VM's
 * @param overlays whether the VMM takes disks in layers
 */
export async function giveDisk(
  disk: DiskAttachment,
  from: string,
  dir: string,
  overlays: boolean,
): Promise<DiskAttachment> {
  const kept: DiskAttachment = {
    ...disk,
    path: join(from, disk.path),
    ...(disk.backing === undefined
      ? {}
      : { backing: disk.backing.map((name) => join(from, name)) }),
  };
  const method = await chooseMethod(kept, dir, overlays);
  const below: string[] = [];
  for (const [layer, path] of (kept.backing ?? []).entries()) {
    const to = layerPath(dir, disk, extensionOf(layer));
    await share(path, to);
    below.push(to);
  }
  const own = layerPath(dir, disk, extensionOf(below.length));
  const backing = below.length === 0 ? {} : { backing: below };
  if (method === "overlay") {
    await share(kept.path, own);
    return await withLayer({ ...disk, path: own, ...backing }, dir);
  }
  await (method === "reflink" ? reflink(kept.path, own) : copySparse(kept.path, own));
  return { ...disk, path: own, ...backing };
}

/** A shared disk of a snapshot for a VM: where it lies, or a name of the snapshot's own file. */
async function shareDisk(disk: DiskAttachment, from: string, dir: string): Promise<DiskAttachment> {
  if (isAbsolute(disk.path)) return disk;
  const path = layerPath(dir, disk, extensionOf(0));
  await share(join(from, disk.path), path);
  return { ...disk, path };
}

/** Remove layers in a VM's directory that its disks no longer use. */
export async function removeUnused(dir: string, disks: readonly DiskAttachment[]): Promise<void> {
  const used = new Set(disks.flatMap((disk) => [disk.path, ...(disk.backing ?? [])]));
  for (const name of await readdir(dir)) {
    if (!/^(base|upper|root|data|modules)(-[0-9a-f]{8})?\.(ext4|qcow2)$/.test(name)) continue;
    if (!used.has(join(dir, basename(name)))) await rm(join(dir, name), { force: true });
  }
}

/**
 * Give a VM all disks of a snapshot, side by side: its own of those that it writes to, a part in the others. When one fails,
 * the others have ended before that is thrown.
 * @param from the snapshot's directory
 * @param dir the VM's
 * @param layers whether the driver takes disks in layers
 */
export async function giveDisks(
  disks: readonly DiskAttachment[],
  from: string,
  dir: string,
  layers: boolean,
  signal: AbortSignal,
): Promise<DiskAttachment[]> {
  return await together<DiskAttachment[]>(
    signal,
    ...disks.map(
      (disk) => async () =>
        disk.readonly ? await shareDisk(disk, from, dir) : await giveDisk(disk, from, dir, layers),
    ),
  );
}
