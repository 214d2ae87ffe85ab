/**
 * Directory blocks (kernel: Documentation/filesystems/ext4/directory.rst): linear in one block,
 * a hash tree from two blocks up. Names are byte strings (latin1), 1–255 bytes.
 */
import { crc32c, crc32cWord } from "./crc32c.ts";
import { BLOCK_SIZE } from "./constants.ts";

/** One name in a directory. */
export interface DirectoryEntry {
  name: string;
  inode: number;
  /** file_type of the entry, see DIRENT_TYPE. */
  type: number;
}

type Hash = (name: string) => { major: number; minor: number };

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

/** Bytes that an entry takes, without slack. */
const entrySize = (name: string): number => (8 + name.length + 3) & ~3;

/** What goes into one leaf: `entries[from … to−1]`, hash of the first, shared with the leaf before? */
interface Leaf {
  from: number;
  to: number;
  hash: number;
  continued: boolean;
}

/** A directory whose blocks are laid out; {@link encodeDirectory} writes them once inodes are known. */
export interface DirectoryPlan {
  /** Names in the order they will be written. */
  names: string[];
  /** Leaves; exactly one for a linear directory. */
  leaves: Leaf[];
  /** Blocks the directory needs in all. */
  blocks: number;
}

/** Lay out a directory. The same set of names in the same order gives the same plan. */
export function planDirectory(names: Iterable<string>, hash: Hash): DirectoryPlan {
  const list = [...names];
  let bytes = entrySize(".") + entrySize("..");
  for (const name of list) bytes += entrySize(name);
  if (bytes <= LEAF_ROOM) {
    return {
      names: list,
      leaves: [{ from: 0, to: list.length, hash: 0, continued: false }],
      blocks: 1,
    };
  }
  const hashed = list.map((name) => ({ name, ...hash(name) }));
  hashed.sort(
    (a, b) =>
      a.major - b.major || a.minor - b.minor || (a.name < b.name ? -1 : a.name > b.name ? 1 : 0),
  );
  const leaves: Leaf[] = [];
  let used = Infinity;
  hashed.forEach(({ name, major }, i) => {
    const size = entrySize(name);
    const last = leaves.at(-1);
    if (used + size > LEAF_ROOM || last === undefined) {
      leaves.push({ from: i, to: i + 1, hash: major, continued: hashed[i - 1]?.major === major });
      used = size;
    } else {
      last.to = i + 1;
      used += size;
    }
  });
  const nodes = leaves.length > ROOT_LIMIT ? Math.ceil(leaves.length / NODE_LIMIT) : 0;
  if (nodes > ROOT_LIMIT) throw new RangeError("directory too large for a two-level index");
  return {
    names: hashed.map(({ name }) => name),
    leaves,
    blocks: 1 + nodes + leaves.length,
  };
}

/** Write one entry and return the offset behind it. */
function putEntry(
  view: DataView,
  bytes: Uint8Array,
  at: number,
  entry: DirectoryEntry,
  length: number,
): void {
  view.setUint32(at, entry.inode, true);
  view.setUint16(at + 4, length, true);
  bytes[at + 6] = entry.name.length;
  bytes[at + 7] = entry.type;
  for (let i = 0; i < entry.name.length; i++) bytes[at + 8 + i] = entry.name.charCodeAt(i);
}

/** Fill a leaf block with entries, the last one reaching to the checksum entry. */
function putLeaf(bytes: Uint8Array, entries: readonly DirectoryEntry[], seed: number): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, BLOCK_SIZE);
  let at = 0;
  entries.forEach((entry, i) => {
    const length = i === entries.length - 1 ? LEAF_ROOM - at : entrySize(entry.name);
    putEntry(view, bytes, at, entry, length);
    at += length;
  });
  view.setUint16(LEAF_ROOM + 4, TAIL, true);
  bytes[LEAF_ROOM + 7] = 0xde;
  view.setUint32(LEAF_ROOM + 8, crc32c(seed, bytes, 0, LEAF_ROOM), true);
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
 * Write a planned directory.
 * @param self its own inode number
 * @param parent inode of `..`
 * @param lookup inode and type of a name
 * @param seed checksum seed of the directory's inode
 * @param emit takes the finished blocks in logical order; each block may be kept
 */
export function encodeDirectory(
  plan: DirectoryPlan,
  self: number,
  parent: number,
  lookup: (name: string) => { inode: number; type: number },
  seed: number,
  emit: (block: Uint8Array) => void,
): void {
  const dots: DirectoryEntry[] = [
    { name: ".", inode: self, type: TYPE_DIRECTORY },
    { name: "..", inode: parent, type: TYPE_DIRECTORY },
  ];
  const entriesOf = (leaf: Leaf): DirectoryEntry[] =>
    plan.names.slice(leaf.from, leaf.to).map((name) => ({ name, ...lookup(name) }));
  const [only] = plan.leaves;
  if (plan.blocks === 1 && only !== undefined) {
    const bytes = new Uint8Array(BLOCK_SIZE);
    putLeaf(bytes, [...dots, ...entriesOf(only)], seed);
    emit(bytes);
    return;
  }
  const nodes = plan.blocks - 1 - plan.leaves.length;
  const index = plan.leaves.map((leaf, i) => ({
    // Bit 0 of an index hash says that its first name's hash also occurs in the leaf before.
    hash: leaf.continued ? leaf.hash | 1 : leaf.hash,
    block: 1 + nodes + i,
  }));
  const root = new Uint8Array(BLOCK_SIZE);
  const rootView = new DataView(root.buffer);
  dots.forEach((entry, i) =>
    putEntry(rootView, root, i * 12, entry, i === 0 ? 12 : BLOCK_SIZE - 12),
  );
  root[28] = HASH_HALF_MD4;
  root[29] = 8; // length of the root's info
  root[30] = nodes > 0 ? 1 : 0; // levels below the root
  const parts: (typeof index)[] = [];
  for (let n = 0; n < nodes; n++) parts.push(index.slice(n * NODE_LIMIT, (n + 1) * NODE_LIMIT));
  const top =
    nodes === 0 ? index : parts.map((part, i) => ({ hash: part[0]?.hash ?? 0, block: 1 + i }));
  putIndex(root, ROOT_AT, ROOT_LIMIT, top, seed);
  emit(root);
  for (const part of parts) {
    const node = new Uint8Array(BLOCK_SIZE);
    new DataView(node.buffer).setUint16(4, BLOCK_SIZE, true); // one empty entry hides the index
    putIndex(node, NODE_AT, NODE_LIMIT, part, seed);
    emit(node);
  }
  for (const leaf of plan.leaves) {
    const bytes = new Uint8Array(BLOCK_SIZE);
    putLeaf(bytes, entriesOf(leaf), seed);
    emit(bytes);
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
