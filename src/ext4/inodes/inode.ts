/** Inodes (kernel: Documentation/filesystems/ext4/inodes.rst): 256 bytes each. */
import { crc32c, crc32cWord, crc32cZeros } from "../crc32c.ts";
import { EXTRA_ISIZE, INODE_FLAG, INODE_SIZE, MODE_TYPE, type InodeKind } from "../constants.ts";
import type { PlacedBlocks } from "./placed.ts";

/** Where i_block lies in an inode. */
export const I_BLOCK = 0x28;

/** Earliest and latest second that 34 bits of ext4's time hold (1901 … 2446). */
const MIN_TIME = -(2 ** 31);
const MAX_TIME = 2 ** 31 - 1 + 3 * 2 ** 32;

/** What of an inode is the same in memory and on disk. */
export interface InodeFields {
  kind: InodeKind;
  /** Permission bits with setuid, setgid and sticky: 0 … 0o7777. */
  mode: number;
  uid: number;
  gid: number;
  /** Seconds since 1970, may be negative; all four times of the inode. */
  mtime: number;
  /** 0 … 999,999,999. */
  mtimeNsec: number;
}

/** Inodes one behind the other: their bytes, and a view of the same. */
export interface InodeTable {
  bytes: Buffer;
  view: DataView;
}

/** A buffer as a table of inodes. */
export function inodeTable(bytes: Buffer): InodeTable {
  return { bytes, view: new DataView(bytes.buffer, bytes.byteOffset, bytes.length) };
}

/** Checksum seed of one inode's own structures. All generations are 0. */
export function inodeSeed(seed: number, inode: number): number {
  return crc32cZeros(crc32cWord(seed, inode), 4);
}

/** Seconds within ext4's range; whether they had to be moved is for the caller to count. */
export function clampTime(seconds: number): number {
  return Math.min(Math.max(seconds, MIN_TIME), MAX_TIME);
}

/** i_xtime_extra: nanoseconds in the upper 30 bits, the epoch in the lower two. */
export function timeExtra(seconds: number, nsec: number): number {
  const epoch = Math.round((seconds - (seconds | 0)) / 2 ** 32) & 3;
  return ((nsec << 2) | epoch) >>> 0;
}

/** The inverse of i_xtime and i_xtime_extra. */
export function decodeTime(low: number, extra: number): { seconds: number; nsec: number } {
  return { seconds: (low | 0) + (extra & 3) * 2 ** 32, nsec: extra >>> 2 };
}

/**
 * Write the fixed fields (checksum last, by {@link sealInode}).
 * @param table zeroed buffer of inodes, and a view of all of it
 * @param at byte offset of this one
 * @param links its names
 * @param placed its content
 */
export function putInode(
  table: InodeTable,
  at: number,
  inode: InodeFields,
  links: number,
  placed: PlacedBlocks,
): void {
  const { bytes, view } = table;
  const { uid, gid, mtime } = inode;
  const { size, xattrBlock } = placed;
  const extra = timeExtra(mtime, inode.mtimeNsec);
  let { flags } = placed;
  let units = placed.blocks * 8; // i_blocks counts 512-byte units …
  if (units >= 2 ** 48) {
    units = placed.blocks; // … or whole blocks where the number would not fit
    flags |= INODE_FLAG.hugeFile;
  }
  view.setUint16(at, MODE_TYPE[inode.kind] | inode.mode, true);
  view.setUint16(at + 0x2, uid & 0xffff, true);
  view.setUint32(at + 0x4, size % 2 ** 32, true);
  view.setUint32(at + 0x8, mtime | 0, true);
  view.setUint32(at + 0xc, mtime | 0, true);
  view.setUint32(at + 0x10, mtime | 0, true);
  view.setUint16(at + 0x18, gid & 0xffff, true);
  view.setUint16(at + 0x1a, links, true);
  view.setUint32(at + 0x1c, units % 2 ** 32, true);
  view.setUint32(at + 0x20, flags, true);
  if (placed.block !== undefined) bytes.set(placed.block, at + I_BLOCK);
  view.setUint32(at + 0x68, xattrBlock % 2 ** 32, true);
  view.setUint32(at + 0x6c, Math.floor(size / 2 ** 32), true);
  view.setUint16(at + 0x74, Math.floor(units / 2 ** 32), true);
  view.setUint16(at + 0x76, Math.floor(xattrBlock / 2 ** 32), true);
  view.setUint16(at + 0x78, uid >>> 16, true);
  view.setUint16(at + 0x7a, gid >>> 16, true);
  view.setUint16(at + 0x80, EXTRA_ISIZE, true);
  view.setUint32(at + 0x84, extra, true);
  view.setUint32(at + 0x88, extra, true);
  view.setUint32(at + 0x8c, extra, true);
  view.setUint32(at + 0x90, mtime | 0, true);
  view.setUint32(at + 0x94, extra, true);
}

/** A reserved inode that is not in use: only its extra size, so that its checksum is whole. */
export function putReservedInode({ view }: InodeTable, at: number): void {
  view.setUint16(at + 0x80, EXTRA_ISIZE, true);
}

/**
 * Write the checksum of a finished inode.
 * @param seed that of its own structures: {@link inodeSeed}
 * @param hasXattrs false: nothing stands behind the fields
 */
export function sealInode(
  { bytes, view }: InodeTable,
  at: number,
  seed: number,
  hasXattrs: boolean,
): void {
  view.setUint16(at + 0x7c, 0, true);
  view.setUint16(at + 0x82, 0, true);
  const length = hasXattrs ? INODE_SIZE : 128 + EXTRA_ISIZE;
  const crc = crc32cZeros(crc32c(seed, bytes, at, at + length), INODE_SIZE - length);
  view.setUint16(at + 0x7c, crc & 0xffff, true);
  view.setUint16(at + 0x82, crc >>> 16, true);
}

/** i_block of a device node: old encoding where it fits, else the new one. */
export function deviceBlock(major: number, minor: number): Uint8Array {
  const block = new Uint8Array(60);
  const view = new DataView(block.buffer);
  if (major < 256 && minor < 256) view.setUint32(0, (major << 8) | minor, true);
  else {
    const encoded = (minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12);
    view.setUint32(4, encoded >>> 0, true);
  }
  return block;
}

/** The inverse of {@link deviceBlock}. */
export function decodeDevice(block: Uint8Array): { major: number; minor: number } {
  const view = new DataView(block.buffer, block.byteOffset, 60);
  const old = view.getUint32(0, true);
  if (old !== 0) return { major: old >>> 8, minor: old & 0xff };
  const encoded = view.getUint32(4, true);
  return {
    major: (encoded >>> 8) & 0xfff,
    minor: (encoded & 0xff) | ((encoded >>> 12) & 0xfff00),
  };
}
