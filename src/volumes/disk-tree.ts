/**
 * A directory of a disk as an archive, for a shared volume to be made of: of a volume that a guest has written, or of an
 * image. Both are hostile: every walk has an end, and no more bytes come out than the disk has.
 */
import { mkdtemp, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { openFileSystem } from "../changes/disk.ts";
import { entryBytes } from "../changes/layer.ts";
import type { Ext4Reader, FoundInode } from "../ext4/ext4.ts";
import { END_OF_ARCHIVE } from "../layers/layers.ts";
import { ASIDE } from "../util/atomic.ts";

const ROOT = 2;
/** How many times as long as the disk all files with their holes may be: longer only a hostile disk has them. */
const MOST_LENGTHS = 16;
/** Entries between two turns of the event loop. */
const BREATH = 256;
/** What can lie in a shared volume: sockets are nothing without their process, devices would be the host's. */
const KEPT = new Set(["file", "directory", "symlink", "fifo"]);

/** A directory of a disk, or the nearest one above it that is there. */
function find(
  reader: Ext4Reader,
  names: readonly string[],
): { inode: FoundInode; missing: boolean } {
  let inode = reader.describe(ROOT);
  for (const name of names) {
    // Names on disk are bytes.
    const wanted = Buffer.from(name).toString("latin1");
    const number = [...reader.list(inode)].find((entry) => entry.name === wanted)?.inode;
    const next = number === undefined ? undefined : reader.describe(number);
    if (next?.kind !== "directory") return { inode, missing: true };
    inode = next;
  }
  return { inode, missing: false };
}

/** Adds up the lengths of files, and what of them is not zero, which a disk has room for once. */
class Content {
  private length = 0;
  private stored = 0;
  private readonly most: number;
  private readonly zeros = Buffer.alloc(1 << 20);

  constructor(most: number) {
    this.most = most;
  }

  /** A file begins. @throws RangeError when it is longer than any of the disk is */
  begin(length: number): void {
    this.length += length;
    this.check();
  }

  /** A piece of it has come. @throws RangeError when it is more than the disk has room for */
  add(piece: Buffer): void {
    const empty =
      piece.length <= this.zeros.length && piece.equals(this.zeros.subarray(0, piece.length));
    if (!empty) this.stored += piece.length;
    this.check();
  }

  private check(): void {
    if (this.length > MOST_LENGTHS * this.most || this.stored > this.most) {
      throw new RangeError("its files are longer than it is");
    }
  }
}

/**
 * The archive, in pieces of at most 1 MiB, of one directory with the name `data`. One that is not there is empty, and
 * belongs to whom the directory above it belongs to.
 * @param disk path of a raw image that nobody writes to
 * @param path absolute path of the directory in its file system, through no links
 * @param near a directory with room for a copy of the disk, if its journal must be replayed; nothing stays there
 * @param look is called with each file, and may refuse it
 * @throws RangeError for what no file system has; what {@link openFileSystem} says
 */
export async function* diskTree(
  disk: string,
  path: string,
  near: string,
  signal: AbortSignal,
  look: (path: string, inode: FoundInode) => void = () => undefined,
): AsyncGenerator<Buffer> {
  const { size } = await stat(disk);
  const scratch = await mkdtemp(join(near, ASIDE));
  try {
    const reader = await openFileSystem([disk], scratch, signal);
    try {
      const names = path.split("/").filter((name) => name !== "");
      yield* treeOf(reader, names, new Content(size), signal, look);
    } finally {
      reader.close();
    }
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

async function* treeOf(
  reader: Ext4Reader,
  names: readonly string[],
  content: Content,
  signal: AbortSignal,
  look: (path: string, inode: FoundInode) => void,
): AsyncGenerator<Buffer> {
  const { inode: top, missing } = find(reader, names);
  const root = missing ? { ...top, mode: 0o755, xattrs: {} } : top;
  const first = new Map<number, string>();
  const pending: [string, FoundInode][] = [["data", root]];
  let count = 0;
  for (let item = pending.pop(); item !== undefined; item = pending.pop()) {
    const [name, inode] = item;
    count += 1;
    if (count % BREATH === 0) await new Promise((resolve) => setImmediate(resolve));
    signal.throwIfAborted();
    if (inode.kind === "socket" || !KEPT.has(inode.kind)) continue;
    look(name, inode);
    const before = first.get(inode.inode);
    if (before !== undefined && inode.kind === "directory") {
      throw new RangeError(`the directory ${name} has two names`);
    }
    first.set(inode.inode, before ?? name);
    if (inode.kind === "file" && before === undefined) content.begin(inode.size);
    for (const piece of entryBytes(name, inode, inode.kind, reader, before)) {
      signal.throwIfAborted();
      content.add(piece);
      yield piece;
    }
    if (inode.kind !== "directory" || (missing && inode === root)) continue;
    for (const { name: child, inode: number } of reader.list(inode)) {
      if (child === "" || /[/\0]/.test(child)) throw new RangeError(`a name in ${name}`);
      pending.push([`${name}/${child}`, reader.describe(number)]);
    }
  }
  yield END_OF_ARCHIVE;
}
