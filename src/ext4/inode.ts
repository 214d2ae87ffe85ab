/** Inodes (kernel: Documentation/filesystems/ext4/inodes.rst): 256 bytes each. */
import { crc32c, crc32cWord } from "./crc32c.ts";
import { EXTRA_ISIZE, INODE_FLAG, INODE_SIZE, MODE_TYPE, type InodeKind } from "./constants.ts";

/** Earliest and latest second that 34 bits of ext4's time hold (1901 … 2446). */
export const MIN_TIME = -(2 ** 31);
export const MAX_TIME = 2 ** 31 - 1 + 3 * 2 ** 32;

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
  links: number;
  size: number;
  /** 4096-byte blocks, extent and attribute blocks included. */
  blocks: number;
  flags: number;
  /** Extent tree, fast symlink or device number: 60 bytes. */
  block: Uint8Array;
  /** Attribute block, 0 without. */
  xattrBlock: number;
}

/** Checksum seed of one inode's own structures. All generations are 0. */
export function inodeSeed(seed: number, inode: number): number {
  return crc32cWord(crc32cWord(seed, inode), 0);
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
 * @param bytes zeroed buffer of inodes
 * @param at byte offset of this one
 */
export function putInode(bytes: Uint8Array, at: number, fields: InodeFields): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, INODE_SIZE);
  const u16 = (to: number, value: number): void => view.setUint16(to, value, true);
  const u32 = (to: number, value: number): void => view.setUint32(to, value, true);
  const extra = timeExtra(fields.mtime, fields.mtimeNsec);
  let flags = fields.flags;
  let units = fields.blocks * 8; // i_blocks counts 512-byte units …
  if (units >= 2 ** 48) {
    units = fields.blocks; // … or whole blocks where the number would not fit
    flags |= INODE_FLAG.hugeFile;
  }
  u16(0x0, MODE_TYPE[fields.kind] | fields.mode);
  u16(0x2, fields.uid & 0xffff);
  u32(0x4, fields.size % 2 ** 32);
  u32(0x8, fields.mtime | 0);
  u32(0xc, fields.mtime | 0);
  u32(0x10, fields.mtime | 0);
  u16(0x18, fields.gid & 0xffff);
  u16(0x1a, fields.links);
  u32(0x1c, units % 2 ** 32);
  u32(0x20, flags);
  bytes.set(fields.block, at + 0x28);
  u32(0x68, fields.xattrBlock % 2 ** 32);
  u32(0x6c, Math.floor(fields.size / 2 ** 32));
  u16(0x74, Math.floor(units / 2 ** 32));
  u16(0x76, Math.floor(fields.xattrBlock / 2 ** 32));
  u16(0x78, fields.uid >>> 16);
  u16(0x7a, fields.gid >>> 16);
  u16(0x80, EXTRA_ISIZE);
  u32(0x84, extra);
  u32(0x88, extra);
  u32(0x8c, extra);
  u32(0x90, fields.mtime | 0);
  u32(0x94, extra);
}

/** A reserved inode that is not in use: only its extra size, so that its checksum is whole. */
export function putReservedInode(bytes: Uint8Array, at: number): void {
  new DataView(bytes.buffer, bytes.byteOffset + at).setUint16(0x80, EXTRA_ISIZE, true);
}

/** Write the checksum of a finished inode. */
export function sealInode(bytes: Uint8Array, at: number, seed: number, inode: number): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, INODE_SIZE);
  view.setUint16(0x7c, 0, true);
  view.setUint16(0x82, 0, true);
  const crc = crc32c(inodeSeed(seed, inode), bytes, at, at + INODE_SIZE);
  view.setUint16(0x7c, crc & 0xffff, true);
  view.setUint16(0x82, crc >>> 16, true);
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
