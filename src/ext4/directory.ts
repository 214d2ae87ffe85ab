/**
 * Directory blocks (kernel: Documentation/filesystems/ext4/directory.rst): linear in one block,
 * a hash tree from two blocks up. Names are byte strings (latin1), 1–255 bytes.
 */
import { crc32c, crc32cWord } from "./crc32c.ts";
import { BLOCK_SIZE } from "./constants.ts";
import type { DirectoryHash } from "./hash.ts";

/** One name in a directory. */
export interface DirectoryEntry {
  name: string;
  inode: number;
  /** file_type of the entry, see DIRENT_TYPE. */
  type: number;
}

const TAIL = 12;
/** Bytes for entries in a leaf: the block without its checksum entry. */
const LEAF_ROOM = BLOCK_SIZE - TAIL;
const DX_ENTRY = 8;
const DX_TAIL = 8;
/** Where the root's and a node's index entries begin, and how many fit. */
const ROOT_AT = 32;
const NODE_AT = 8;
const ROOT_LIMIT = (BLOCK_SIZE - ROOT_AT - DX_TAIL) / DX_ENTRY;
const NODE_LIMIT = (BLOCK_SIZE - NODE_AT - DX_TAIL) / DX_ENTRY;
const HASH_HALF_MD4 = 1;
const TYPE_DIRECTORY = 2;
const DOT_BYTE = 0x2e;

/** Bytes that an entry with a name of this length takes, without slack. */
const entrySize = (length: number): number => (8 + length + 3) & ~3;

/** Bytes of `.` and of `..`. */
const DOT = 12;

/** The names of a directory as the writer wants them, by their place in a list. */
export interface DirectoryNames {
  /** All names' bytes, and where in them each name begins and how long it is. */
  bytes: Uint8Array;
  starts: Uint32Array;
  lengths: Uint8Array;
  /** Inode and file_type of each name. */
  inodes: Uint32Array;
  types: Uint8Array;
}

/** A directory to be written. */
export interface Directory {
  /** Its own inode, and that of `..`. */
  self: number;
  parent: number;
  names: DirectoryNames;
  /** Checksum seed of its inode. */
  seed: number;
  hash: DirectoryHash;
}

/** What goes into one leaf: the names `order[from … to−1]`; hash of the first, shared with the leaf before? */
interface Leaf {
  from: number;
  to: number;
  hash: number;
  continued: boolean;
}

/** Bytes of all entries, `.` and `..` included. */
function bytesOf({ lengths }: DirectoryNames): number {
  let bytes = 2 * DOT;
  for (const length of lengths) bytes += entrySize(length);
  return bytes;
}

/** Order names by hash, and by their bytes where hashes are the same, and cut them into leaves. */
function planLeaves(
  names: DirectoryNames,
  hash: DirectoryHash,
): { order: Uint32Array; leaves: Leaf[] } {
  const { bytes, starts, lengths } = names;
  const count = starts.length;
  const majors = new Float64Array(count);
  const minors = new Float64Array(count);
  const order = new Uint32Array(count);
  for (let i = 0; i < count; i++) {
    hash.of(bytes, starts[i] ?? 0, lengths[i] ?? 0);
    majors[i] = hash.major;
    minors[i] = hash.minor;
    order[i] = i;
  }
  const name = (i: number): Buffer => {
    const from = starts[i] ?? 0;
    return Buffer.from(bytes.buffer, bytes.byteOffset + from, lengths[i] ?? 0);
  };
  order.sort(
    (a, b) =>
      (majors[a] ?? 0) - (majors[b] ?? 0) ||
      (minors[a] ?? 0) - (minors[b] ?? 0) ||
      Buffer.compare(name(a), name(b)),
  );
  const leaves: Leaf[] = [];
  let used = Infinity;
  let before = -1;
  order.forEach((at, i) => {
    const size = entrySize(lengths[at] ?? 0);
    const major = majors[at] ?? 0;
    const last = leaves.at(-1);
    if (used + size > LEAF_ROOM || last === undefined) {
      leaves.push({ from: i, to: i + 1, hash: major, continued: before === major });
      used = size;
    } else {
      last.to = i + 1;
      used += size;
    }
    before = major;
  });
  return { order, leaves };
}

/** Write one entry's head, its name to follow. */
function putHead(
  view: DataView,
  at: number,
  inode: number,
  length: number,
  nameLength: number,
  type: number,
): void {
  view.setUint32(at, inode, true);
  view.setUint16(at + 4, length, true);
  view.setUint8(at + 6, nameLength);
  view.setUint8(at + 7, type);
}

/** Write `.` and `..`, the latter reaching to `end`. */
function putDots(view: DataView, { self, parent }: Directory, end: number): void {
  putHead(view, 0, self, DOT, 1, TYPE_DIRECTORY);
  putHead(view, DOT, parent, end - DOT, 2, TYPE_DIRECTORY);
  view.setUint8(8, DOT_BYTE);
  view.setUint16(DOT + 8, DOT_BYTE * 257);
}

/** Fill a leaf block from `start` on with `order[from … to−1]`, the last one reaching to the checksum entry. */
function putLeaf(
  block: Uint8Array,
  view: DataView,
  start: number,
  directory: Directory,
  order: Uint32Array | undefined,
  from: number,
  to: number,
): void {
  const { bytes, starts, lengths, inodes, types } = directory.names;
  let at = start;
  for (let i = from; i < to; i++) {
    const entry = order === undefined ? i : (order[i] ?? 0);
    const nameLength = lengths[entry] ?? 0;
    const length = i === to - 1 ? LEAF_ROOM - at : entrySize(nameLength);
    putHead(view, at, inodes[entry] ?? 0, length, nameLength, types[entry] ?? 0);
    const name = starts[entry] ?? 0;
    for (let k = 0; k < nameLength; k++) block[at + 8 + k] = bytes[name + k] ?? 0;
    at += length;
  }
  view.setUint16(LEAF_ROOM + 4, TAIL, true);
  block[LEAF_ROOM + 7] = 0xde;
  view.setUint32(LEAF_ROOM + 8, crc32c(directory.seed, block, 0, LEAF_ROOM), true);
}

/** Index entries (hash → block) with their count, limit and checksum. */
function putIndex(
  bytes: Uint8Array,
  at: number,
  limit: number,
  entries: readonly { hash: number; block: number }[],
  seed: number,
): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, BLOCK_SIZE);
  entries.forEach(({ hash, block }, i) => {
    // The first entry stands for all smaller hashes: count and limit lie in its place.
    if (i > 0) view.setUint32(at + i * DX_ENTRY, hash, true);
    view.setUint32(at + i * DX_ENTRY + 4, block, true);
  });
  view.setUint16(at, limit, true);
  view.setUint16(at + 2, entries.length, true);
  const covered = crc32c(seed, bytes, 0, at + entries.length * DX_ENTRY);
  // Then the tail's reserved word and its checksum field, both zero.
  view.setUint32(at + limit * DX_ENTRY + 4, crc32cWord(crc32cWord(covered, 0), 0), true);
}

/**
 * Write a directory.
 * @param emit takes the finished blocks in logical order; a block is used again afterwards
 */
export function encodeDirectory(directory: Directory, emit: (block: Uint8Array) => void): void {
  const { names, seed } = directory;
  const block = new Uint8Array(BLOCK_SIZE);
  const view = new DataView(block.buffer);
  const count = names.starts.length;
  if (bytesOf(names) <= LEAF_ROOM) {
    putDots(view, directory, count === 0 ? LEAF_ROOM : 2 * DOT);
    putLeaf(block, view, 2 * DOT, directory, undefined, 0, count);
    emit(block);
    return;
  }
  const { order, leaves } = planLeaves(names, directory.hash);
  const nodes = leaves.length > ROOT_LIMIT ? Math.ceil(leaves.length / NODE_LIMIT) : 0;
  if (nodes > ROOT_LIMIT) throw new RangeError("directory too large for a two-level index");
  const index = leaves.map((leaf, i) => ({
    // Bit 0 of an index hash says that its first name's hash also occurs in the leaf before.
    hash: leaf.continued ? leaf.hash | 1 : leaf.hash,
    block: 1 + nodes + i,
  }));
  putDots(view, directory, BLOCK_SIZE);
  block[28] = HASH_HALF_MD4;
  block[29] = 8; // length of the root's info
  block[30] = nodes > 0 ? 1 : 0; // levels below the root
  const parts: (typeof index)[] = [];
  for (let n = 0; n < nodes; n++) parts.push(index.slice(n * NODE_LIMIT, (n + 1) * NODE_LIMIT));
  const top =
    nodes === 0 ? index : parts.map((part, i) => ({ hash: part[0]?.hash ?? 0, block: 1 + i }));
  putIndex(block, ROOT_AT, ROOT_LIMIT, top, seed);
  emit(block);
  for (const part of parts) {
    block.fill(0);
    view.setUint16(4, BLOCK_SIZE, true); // one empty entry hides the index
    putIndex(block, NODE_AT, NODE_LIMIT, part, seed);
    emit(block);
  }
  for (const { from, to } of leaves) {
    block.fill(0);
    putLeaf(block, view, 0, directory, order, from, to);
    emit(block);
  }
}

/** Read one directory block's live entries (index blocks give none but `.` and `..`). */
export function decodeDirectoryBlock(bytes: Uint8Array): DirectoryEntry[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, BLOCK_SIZE);
  const entries: DirectoryEntry[] = [];
  for (let at = 0; at + 8 <= BLOCK_SIZE;) {
    const inode = view.getUint32(at, true);
    const length = view.getUint16(at + 4, true);
    if (length < 8) throw new RangeError("bad directory entry");
    const nameLength = bytes[at + 6] ?? 0;
    if (inode !== 0) {
      const name = Buffer.from(bytes.buffer, bytes.byteOffset + at + 8, nameLength);
      entries.push({ name: name.toString("latin1"), inode, type: bytes[at + 7] ?? 0 });
    }
    at += length;
  }
  return entries;
}
