/**
 * Extended attributes (kernel: Documentation/filesystems/ext4/attributes.rst): inside the inode
 * where they fit, else in one block of their own.
 */
import { crc32c, crc32cWord } from "../crc32c.ts";
import { BLOCK_SIZE, EXTRA_ISIZE, INODE_SIZE } from "../constants.ts";

/** Attributes by full name (latin1) as the kernel shows them, e.g. `security.capability`. */
export type Xattrs = ReadonlyMap<string, Uint8Array>;

interface Entry {
  index: number;
  name: string;
  value: Uint8Array;
}

/** Attributes ready to be written. */
export interface XattrPlan {
  inInode: Entry[];
  inBlock: Entry[];
}

const MAGIC = 0xea020000;
const ENTRY = 16;
const BLOCK_HEADER = 32;
/** Where the attributes begin in an inode, and their room behind the magic number. */
const INODE_AT = 128 + EXTRA_ISIZE;
const INODE_ROOM = INODE_SIZE - INODE_AT - 4;
const BLOCK_ROOM = BLOCK_SIZE - BLOCK_HEADER;
/** End marker of the entries. */
const END = 4;

const PREFIXES: readonly [string, number][] = [
  ["user.", 1],
  ["trusted.", 4],
  ["security.", 6],
];
const ACL_NAMES: ReadonlyMap<string, number> = new Map([
  ["system.posix_acl_access", 2],
  ["system.posix_acl_default", 3],
]);

const pad4 = (n: number): number => (n + 3) & ~3;
const sizeOf = (entry: Entry): number => ENTRY + pad4(entry.name.length) + pad4(entry.value.length);

const ACL_TAG_WITH_ID = new Set([0x02, 0x08]);

/**
 * A POSIX ACL from its xattr form (version 2, 8 bytes per entry) to ext4's own (version 1,
 * entries without an id take 4 bytes); undefined when malformed.
 */
export function packAcl(value: Uint8Array): Uint8Array | undefined {
  const view = new DataView(value.buffer, value.byteOffset, value.byteLength);
  if (value.length < 4 || (value.length - 4) % 8 !== 0 || view.getUint32(0, true) !== 2) {
    return undefined;
  }
  const out = new DataView(new ArrayBuffer(value.length));
  out.setUint32(0, 1, true);
  let at = 4;
  for (let from = 4; from < value.length; from += 8) {
    const tag = view.getUint16(from, true);
    out.setUint16(at, tag, true);
    out.setUint16(at + 2, view.getUint16(from + 2, true), true);
    at += 4;
    if (ACL_TAG_WITH_ID.has(tag)) {
      out.setUint32(at, view.getUint32(from + 4, true), true);
      at += 4;
    }
  }
  return new Uint8Array(out.buffer, 0, at);
}

/** The inverse of {@link packAcl}. */
export function unpackAcl(value: Uint8Array): Uint8Array {
  const view = new DataView(value.buffer, value.byteOffset, value.byteLength);
  const out: number[] = [2, 0, 0, 0];
  for (let at = 4; at + 4 <= value.length;) {
    const tag = view.getUint16(at, true);
    const perm = view.getUint16(at + 2, true);
    at += 4;
    let id = 0xffffffff;
    if (ACL_TAG_WITH_ID.has(tag)) {
      id = view.getUint32(at, true);
      at += 4;
    }
    out.push(tag & 255, tag >> 8, perm & 255, perm >> 8);
    out.push(id & 255, (id >>> 8) & 255, (id >>> 16) & 255, id >>> 24);
  }
  return new Uint8Array(out);
}

/** Name index and rest of the name; undefined when ext4 has no place for such a name. */
function splitName(full: string): { index: number; name: string } | undefined {
  const acl = ACL_NAMES.get(full);
  if (acl !== undefined) return { index: acl, name: "" };
  for (const [prefix, index] of PREFIXES) {
    if (full.startsWith(prefix)) {
      const name = full.slice(prefix.length);
      return name.length > 0 && name.length <= 255 ? { index, name } : undefined;
    }
  }
  return undefined;
}

/** Order that ext4 wants in blocks: index, length of the name, name. */
function compare(a: Entry, b: Entry): number {
  return (
    a.index - b.index ||
    a.name.length - b.name.length ||
    (a.name < b.name ? -1 : a.name > b.name ? 1 : 0)
  );
}

/**
 * Decide where attributes go.
 * @param drop told of each name that ext4 cannot hold
 * @returns undefined when they exceed what an inode and one block hold
 */
export function planXattrs(xattrs: Xattrs, drop: (name: string) => void): XattrPlan | undefined {
  const entries: Entry[] = [];
  for (const [full, raw] of xattrs) {
    const split = splitName(full);
    const value = split !== undefined && split.name === "" ? packAcl(raw) : raw;
    if (split === undefined || value === undefined) drop(full);
    else entries.push({ ...split, value });
  }
  entries.sort(compare);
  const inInode: Entry[] = [];
  const inBlock: Entry[] = [];
  let inodeRoom = INODE_ROOM - END;
  let blockRoom = BLOCK_ROOM - END;
  for (const entry of entries) {
    const size = sizeOf(entry);
    if (size <= inodeRoom) {
      inInode.push(entry);
      inodeRoom -= size;
    } else if (size <= blockRoom) {
      inBlock.push(entry);
      blockRoom -= size;
    } else return undefined;
  }
  return { inInode, inBlock };
}

/** Hash of one entry, over its name and value (fs/ext4/xattr.c). */
function entryHash(entry: Entry): number {
  let hash = 0;
  for (let i = 0; i < entry.name.length; i++) {
    hash = ((hash << 5) ^ (hash >>> 27) ^ entry.name.charCodeAt(i)) | 0;
  }
  const padded = new Uint8Array(pad4(entry.value.length));
  padded.set(entry.value);
  const view = new DataView(padded.buffer);
  for (let at = 0; at < padded.length; at += 4) {
    hash = ((hash << 16) ^ (hash >>> 16) ^ view.getUint32(at, true)) | 0;
  }
  return hash >>> 0;
}

/** Write entries from `at` on and their values down from `end`; offsets count from `base`. */
function putEntries(
  bytes: Uint8Array,
  entries: readonly Entry[],
  at: number,
  end: number,
  base: number,
  hashed: boolean,
): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let entryAt = at;
  let valueAt = end;
  for (const entry of entries) {
    valueAt -= pad4(entry.value.length);
    bytes.set(entry.value, valueAt);
    bytes[entryAt] = entry.name.length;
    bytes[entryAt + 1] = entry.index;
    view.setUint16(entryAt + 2, entry.value.length === 0 ? 0 : valueAt - base, true);
    view.setUint32(entryAt + 8, entry.value.length, true);
    view.setUint32(entryAt + 12, hashed ? entryHash(entry) : 0, true);
    for (let i = 0; i < entry.name.length; i++) {
      bytes[entryAt + ENTRY + i] = entry.name.charCodeAt(i);
    }
    entryAt += ENTRY + pad4(entry.name.length);
  }
}

/** Put the in-inode attributes into an inode's 256 bytes. */
export function putInodeXattrs(inode: Uint8Array, plan: XattrPlan): void {
  if (plan.inInode.length === 0) return;
  new DataView(inode.buffer, inode.byteOffset, inode.byteLength).setUint32(INODE_AT, MAGIC, true);
  putEntries(inode, plan.inInode, INODE_AT + 4, INODE_SIZE, INODE_AT + 4, false);
}

/**
 * The attribute block.
 * @param seed checksum seed of the file system
 * @param block where it will lie: part of its checksum
 */
export function encodeXattrBlock(plan: XattrPlan, seed: number, block: number): Uint8Array {
  const bytes = new Uint8Array(BLOCK_SIZE);
  const view = new DataView(bytes.buffer);
  putEntries(bytes, plan.inBlock, BLOCK_HEADER, BLOCK_SIZE, 0, true);
  view.setUint32(0, MAGIC, true);
  view.setUint32(4, 1, true); // references
  view.setUint32(8, 1, true); // blocks
  let hash = 0;
  for (const entry of plan.inBlock) {
    const one = entryHash(entry);
    // A zero entry hash means "not to be shared", for the whole block.
    if (one === 0) {
      hash = 0;
      break;
    }
    hash = ((hash << 16) ^ (hash >>> 16) ^ one) | 0;
  }
  view.setUint32(12, hash >>> 0, true);
  let crc = crc32cWord(seed, block % 2 ** 32);
  crc = crc32cWord(crc, Math.floor(block / 2 ** 32));
  view.setUint32(16, crc32c(crc, bytes), true);
  return bytes;
}

/** Read entries of an inode's or block's attribute area into `into`. */
function takeEntries(
  bytes: Uint8Array,
  at: number,
  base: number,
  into: Map<string, Uint8Array>,
): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const prefixOf = new Map(PREFIXES.map(([prefix, index]) => [index, prefix]));
  const aclOf = new Map([...ACL_NAMES].map(([name, index]) => [index, name]));
  for (let entry = at; entry + 4 <= bytes.length && view.getUint32(entry, true) !== 0;) {
    const nameLength = bytes[entry] ?? 0;
    const index = bytes[entry + 1] ?? 0;
    const offset = view.getUint16(entry + 2, true);
    const size = view.getUint32(entry + 8, true);
    const name = Buffer.from(bytes.subarray(entry + ENTRY, entry + ENTRY + nameLength));
    const value = bytes.slice(base + offset, base + offset + size);
    const acl = aclOf.get(index);
    if (acl !== undefined) into.set(acl, unpackAcl(value));
    else into.set((prefixOf.get(index) ?? `?${index}.`) + name.toString("latin1"), value);
    entry += ENTRY + pad4(nameLength);
  }
}

/** Read attributes back: from the inode's 256 bytes and, if it has one, its attribute block. */
export function decodeXattrs(
  inode: Uint8Array,
  block: Uint8Array | undefined,
): Map<string, Uint8Array> {
  const found = new Map<string, Uint8Array>();
  const view = new DataView(inode.buffer, inode.byteOffset, inode.byteLength);
  if (view.getUint32(INODE_AT, true) === MAGIC) {
    takeEntries(inode, INODE_AT + 4, INODE_AT + 4, found);
  }
  if (block !== undefined) takeEntries(block, BLOCK_HEADER, 0, found);
  return found;
}
