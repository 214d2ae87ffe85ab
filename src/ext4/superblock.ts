/**
 * The superblock (kernel: Documentation/filesystems/ext4/super.rst): 1024 bytes at offset 1024.
 */
import { crc32c } from "./crc32c.ts";
import {
  BLOCKS_PER_GROUP,
  DESC_SIZE,
  EXTRA_ISIZE,
  FIRST_INODE,
  INODE_SIZE,
  JOURNAL_INODE,
  SUPERBLOCK_SIZE,
} from "./constants.ts";

/** The fields that differ from image to image; everything else is fixed by {@link encodeSuperblock}. */
export interface Superblock {
  blocks: number;
  freeBlocks: number;
  inodes: number;
  freeInodes: number;
  inodesPerGroup: number;
  compat: number;
  incompat: number;
  roCompat: number;
  uuid: Uint8Array;
  hashSeed: Uint8Array;
  label: string;
  /** Inode of lost+found, 0 when the image's own tree has something else by that name. */
  lostAndFound: number;
  /** Descriptor blocks reserved for growth (resize_inode). */
  reservedGdtBlocks: number;
  /** Copy of the journal inode's i_block (60 bytes) and size, for e2fsck. */
  journal: { block: Uint8Array; size: number } | undefined;
}

const MAGIC = 0xef53;
const CLEAN = 1;
const ERRORS_CONTINUE = 1;
const HASH_HALF_MD4 = 1;
const FLAG_SIGNED_HASH = 1;
const CHECKSUM_CRC32C = 1;
const MOUNT_XATTR_ACL = 0xc;
const LOG_GROUPS_PER_FLEX = 4;

/** Put the checksum over the first 1020 bytes at the superblock's end. */
export function sealSuperblock(bytes: Uint8Array): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, SUPERBLOCK_SIZE);
  view.setUint32(0x3fc, crc32c(0xffffffff, bytes, 0, 0x3fc), true);
}

/** The copy of a superblock that belongs into the group with this number. */
export function backupSuperblock(primary: Uint8Array, group: number): Uint8Array {
  const bytes = Uint8Array.from(primary);
  // 16 bits hold all groups that have copies up to 8 TiB; e2fsprogs cuts the number likewise.
  new DataView(bytes.buffer).setUint16(0x5a, group & 0xffff, true);
  sealSuperblock(bytes);
  return bytes;
}

/** The superblock as bytes, checksum included. All times are 0: images are reproducible. */
export function encodeSuperblock(sb: Superblock): Uint8Array {
  const bytes = new Uint8Array(SUPERBLOCK_SIZE);
  const view = new DataView(bytes.buffer);
  const u16 = (at: number, value: number): void => view.setUint16(at, value, true);
  const u32 = (at: number, value: number): void => view.setUint32(at, value, true);
  const split = (low: number, high: number, value: number): void => {
    u32(low, value % 2 ** 32);
    u32(high, Math.floor(value / 2 ** 32));
  };
  u32(0x0, sb.inodes);
  split(0x4, 0x150, sb.blocks);
  split(0xc, 0x158, sb.freeBlocks);
  u32(0x10, sb.freeInodes);
  u32(0x18, 2); // s_log_block_size: 1024 << 2
  u32(0x1c, 2); // s_log_cluster_size
  u32(0x20, BLOCKS_PER_GROUP);
  u32(0x24, BLOCKS_PER_GROUP);
  u32(0x28, sb.inodesPerGroup);
  u16(0x36, 0xffff); // s_max_mnt_count: no periodic check
  u16(0x38, MAGIC);
  u16(0x3a, CLEAN);
  u16(0x3c, ERRORS_CONTINUE);
  u32(0x4c, 1); // s_rev_level
  u32(0x54, FIRST_INODE);
  u16(0x58, INODE_SIZE);
  u32(0x5c, sb.compat);
  u32(0x60, sb.incompat);
  u32(0x64, sb.roCompat);
  bytes.set(sb.uuid, 0x68);
  bytes.set(Buffer.from(sb.label, "utf8").subarray(0, 16), 0x78);
  bytes.set(sb.hashSeed, 0xec);
  bytes[0xfc] = HASH_HALF_MD4;
  u16(0xfe, DESC_SIZE);
  u32(0x100, MOUNT_XATTR_ACL);
  u16(0xce, sb.reservedGdtBlocks);
  if (sb.journal !== undefined) {
    u32(0xe0, JOURNAL_INODE);
    bytes[0xfd] = 1; // s_jnl_backup_type: s_jnl_blocks holds the inode's blocks
    bytes.set(sb.journal.block, 0x10c);
    split(0x14c, 0x148, sb.journal.size);
  }
  u16(0x15c, EXTRA_ISIZE);
  u16(0x15e, EXTRA_ISIZE);
  u32(0x160, FLAG_SIGNED_HASH);
  bytes[0x174] = LOG_GROUPS_PER_FLEX;
  bytes[0x175] = CHECKSUM_CRC32C;
  u32(0x268, sb.lostAndFound);
  sealSuperblock(bytes);
  return bytes;
}

/** What reading a superblock gives. */
export interface DecodedSuperblock {
  blocks: number;
  freeBlocks: number;
  inodes: number;
  freeInodes: number;
  inodesPerGroup: number;
  firstDataBlock: number;
  blockSize: number;
  blocksPerGroup: number;
  inodeSize: number;
  descSize: number;
  state: number;
  compat: number;
  incompat: number;
  roCompat: number;
  reservedGdtBlocks: number;
  firstMetaBg: number;
  uuid: Uint8Array;
  label: string;
}

/** Read a superblock; undefined when magic or checksum are wrong. */
export function decodeSuperblock(bytes: Uint8Array): DecodedSuperblock | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, SUPERBLOCK_SIZE);
  const u16 = (at: number): number => view.getUint16(at, true);
  const u32 = (at: number): number => view.getUint32(at, true);
  if (u16(0x38) !== MAGIC || u32(0x3fc) !== crc32c(0xffffffff, bytes, 0, 0x3fc)) return undefined;
  return {
    blocks: u32(0x4) + u32(0x150) * 2 ** 32,
    freeBlocks: u32(0xc) + u32(0x158) * 2 ** 32,
    inodes: u32(0x0),
    freeInodes: u32(0x10),
    inodesPerGroup: u32(0x28),
    firstDataBlock: u32(0x14),
    blockSize: 1024 << u32(0x18),
    blocksPerGroup: u32(0x20),
    inodeSize: u16(0x58),
    descSize: u16(0xfe),
    state: u16(0x3a),
    compat: u32(0x5c),
    incompat: u32(0x60),
    roCompat: u32(0x64),
    reservedGdtBlocks: u16(0xce),
    firstMetaBg: u32(0x104),
    uuid: bytes.slice(0x68, 0x78),
    label: Buffer.from(bytes.subarray(0x78, 0x88)).toString("utf8").replace(/\0.*$/s, ""),
  };
}
