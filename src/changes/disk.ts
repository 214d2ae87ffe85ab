/**
 * changes/: what a VM has changed of its image. Takes the disks of a VM that stands still; gives the
 * changes as a list, or as one layer of an image.
 *
 * disk.ts: the bytes of a disk that lies in layers (QCOW2 over a raw image), and a copy of it whose
 * journal has been replayed, where its file system was not closed.
 */
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { open, rm } from "node:fs/promises";
import { join } from "node:path";
import { Ext4Reader, rawDisk } from "../ext4/ext4.ts";
import type { DiskBytes } from "../ext4/ext4.ts";
import { VmsanError } from "../model/errors.ts";
import { run } from "../util/run.ts";
import { which } from "../util/which.ts";

/** Bits of an entry of a QCOW2 table that say where something lies. */
const OFFSET_MASK = 0x00ff_ffff_ffff_fe00n;
const COMPRESSED = 1n << 62n;
/** Bit of a version 3 entry: reads as zeros. */
const ZERO = 1n;
/** Second-level tables kept in memory: each is a cluster and stands for 512 MiB. */
const TABLES = 64;

/** One QCOW2 file: which clusters it has itself. */
class Qcow2File {
  readonly sizeBytes: number;
  readonly clusterBytes: number;
  readonly #fd: number;
  readonly #first: BigUint64Array;
  readonly #tables = new Map<number, Buffer>();

  constructor(path: string) {
    this.#fd = openSync(path, "r");
    const header = this.#bytes(0, 104);
    const bits = header.readUInt32BE(20);
    if (header.toString("latin1", 0, 4) !== "QFI\u00FB" || bits < 9 || bits > 21) {
      throw new RangeError(`${path} is no QCOW2 image`);
    }
    // Dirty and corrupt are bits that a reader need not know; external data and longer entries are.
    const incompatible = header.readUInt32BE(4) >= 3 ? header.readBigUInt64BE(72) & ~3n : 0n;
    if (incompatible !== 0n) throw new RangeError(`${path} uses parts of QCOW2 not known here`);
    this.clusterBytes = 2 ** bits;
    this.sizeBytes = Number(header.readBigUInt64BE(24));
    const entries = header.readUInt32BE(36);
    const bytes = this.#bytes(Number(header.readBigUInt64BE(40)), entries * 8);
    this.#first = BigUint64Array.from({ length: entries }, (_, i) => bytes.readBigUInt64BE(i * 8));
  }

  #bytes(offset: number, length: number): Buffer {
    const bytes = Buffer.alloc(length);
    readSync(this.#fd, bytes, 0, length, offset);
    return bytes;
  }

  /** Where a cluster of the disk lies in the file; "zero", or undefined when it is not in this one. */
  find(cluster: number): number | "zero" | undefined {
    const perTable = this.clusterBytes / 8;
    const table = Math.floor(cluster / perTable);
    const at = Number((this.#first[table] ?? 0n) & OFFSET_MASK);
    if (at === 0) return undefined;
    let entries = this.#tables.get(table);
    if (entries === undefined) {
      if (this.#tables.size >= TABLES) this.#tables.clear();
      entries = this.#bytes(at, this.clusterBytes);
      this.#tables.set(table, entries);
    }
    const entry = entries.readBigUInt64BE((cluster % perTable) * 8);
    if ((entry & COMPRESSED) !== 0n) throw new RangeError("a compressed cluster");
    if ((entry & ZERO) !== 0n) return "zero";
    const offset = Number(entry & OFFSET_MASK);
    return offset === 0 ? undefined : offset;
  }

  /** What this file has itself: numbers of the disk's clusters, with where each lies or "zero". */
  *clusters(): Generator<[cluster: number, at: number | "zero"]> {
    const perTable = this.clusterBytes / 8;
    for (const [table, entry] of this.#first.entries()) {
      if ((entry & OFFSET_MASK) === 0n) continue;
      for (let cluster = table * perTable; cluster < (table + 1) * perTable; cluster += 1) {
        const at = this.find(cluster);
        if (at !== undefined) yield [cluster, at];
      }
    }
  }

  read(into: Buffer, offset: number): void {
    readSync(this.#fd, into, 0, into.length, offset);
  }

  close(): void {
    closeSync(this.#fd);
  }
}

/** Layers of a disk as one: what the upper ones do not have is read from those below. */
class LayeredDisk implements DiskBytes {
  readonly #base: DiskBytes;
  /** The newest first. */
  readonly #layers: readonly Qcow2File[];

  constructor(layers: readonly string[]) {
    const [base = "", ...rest] = layers;
    this.#base = rawDisk(base);
    this.#layers = rest.map((path) => new Qcow2File(path)).reverse();
  }

  read(offset: number, length: number): Buffer {
    const bytes = Buffer.alloc(length);
    const size = this.#layers[0]?.clusterBytes ?? 1 << 16;
    for (let at = 0; at < length;) {
      const within = (offset + at) % size;
      const part = bytes.subarray(at, at + Math.min(length - at, size - within));
      this.#fill(part, offset + at);
      at += part.length;
    }
    return bytes;
  }

  #fill(part: Buffer, offset: number): void {
    for (const layer of this.#layers) {
      const cluster = Math.floor(offset / layer.clusterBytes);
      const found = layer.find(cluster);
      if (found === "zero") return;
      if (found !== undefined) {
        layer.read(part, found + (offset % layer.clusterBytes));
        return;
      }
    }
    this.#base.read(offset, part.length).copy(part);
  }

  close(): void {
    this.#base.close();
    for (const layer of this.#layers) layer.close();
  }
}

/** The bytes of a disk. @param layers paths, the lowest (raw) one first */
function openDisk(layers: readonly string[]): DiskBytes {
  const [only = ""] = layers;
  return layers.length > 1 ? new LayeredDisk(layers) : rawDisk(only);
}

/** Size of the disk that a guest sees, in bytes. */
function diskSize(layers: readonly string[]): number {
  const top = layers.at(-1) ?? "";
  if (layers.length > 1) {
    const file = new Qcow2File(top);
    file.close();
    return file.sizeBytes;
  }
  const fd = openSync(top, "r");
  try {
    return fstatSync(fd).size;
  } finally {
    closeSync(fd);
  }
}

/**
 * Copy a disk into one raw file. Nothing reads its holes, which on a large disk are nearly all of it: the raw layer is
 * copied by `cp`, which knows them as Node does not, and of the others what they have is laid over it.
 * @throws ERR_CHANGES_COPY
 */
async function flatten(layers: readonly string[], to: string, signal: AbortSignal): Promise<void> {
  const [base = "", ...upper] = layers;
  const flags = ["--reflink=auto", "--sparse=always", "--no-preserve=mode"];
  const { code, stderr } = await run("cp", [...flags, "--", base, to], { signal });
  if (code !== 0) {
    throw new VmsanError({
      code: "ERR_CHANGES_COPY",
      message: "Cannot copy a disk whose journal must be replayed",
      why: stderr.trim(),
      fix: "Free some disk space, or start a VM with it and stop that again.",
    });
  }
  await using out = await open(to, "r+");
  await out.chmod(0o600);
  await out.truncate(diskSize(layers));
  for (const path of upper) {
    const file = new Qcow2File(path);
    try {
      const bytes = Buffer.alloc(file.clusterBytes);
      for (const [cluster, at] of file.clusters()) {
        signal.throwIfAborted();
        if (at === "zero") bytes.fill(0);
        else file.read(bytes, at);
        const start = cluster * file.clusterBytes;
        await out.write(bytes, 0, Math.min(bytes.length, file.sizeBytes - start), start);
      }
    } finally {
      file.close();
    }
  }
}

/**
 * The file system of a disk that nobody writes to. One that was not closed (its VM was killed) is
 * copied, and its journal replayed by e2fsck, as the next boot would.
 * @param layers paths, the lowest (raw) one first
 * @param scratch a directory for the copy, which its owner removes
 * @throws ERR_SETUP_MISSING_BINARY, ERR_CHANGES_COPY, ERR_CHANGES_DISK
 */
export async function openFileSystem(
  layers: readonly string[],
  scratch: string,
  signal: AbortSignal,
): Promise<Ext4Reader> {
  let reader: Ext4Reader;
  try {
    reader = new Ext4Reader(openDisk(layers));
  } catch (error) {
    throw damagedDisk(error);
  }
  if (!reader.needsRecovery) return reader;
  reader.close();
  if ((await which("e2fsck")) === undefined) {
    throw new VmsanError({
      code: "ERR_SETUP_MISSING_BINARY",
      message: "Cannot read a VM's disk without e2fsck",
      why: "The VM was not shut down, so the file system's journal must be replayed.",
      fix: "Install it (apt-get install e2fsprogs), or start the VM and stop it again.",
    });
  }
  const copy = join(scratch, "recovered.ext4");
  await rm(copy, { force: true });
  await flatten(layers, copy, signal);
  // 0: nothing to do, 1: the journal was replayed.
  const { code, stdout, stderr } = await run("e2fsck", ["-fy", "-E", "journal_only", copy], {
    signal,
    timeoutMs: 10 * 60_000,
  });
  if (code !== 0 && code !== 1) throw damagedDisk(new RangeError(`${stdout}${stderr}`.trim()));
  return new Ext4Reader(copy);
}

/** The error for a disk that cannot be read as what it should be. */
export function damagedDisk(cause: unknown): unknown {
  if (!(cause instanceof RangeError)) return cause;
  return new VmsanError(
    {
      code: "ERR_CHANGES_DISK",
      message: "Cannot read the VM's own disk",
      why: `${cause.message.slice(0, 500)}.`,
      fix: "Start the VM: if it comes up, stop it and try again; `vmsan download` takes files out of it.",
    },
    cause,
  );
}
