/**
 * Numbers of the ext4 on-disk format, as the kernel's Documentation/filesystems/ext4/ and
 * e2fsprogs' lib/ext2fs/ext2_fs.h name them. Only what this writer uses.
 */

/** Bytes per block; the only block size written here. */
export const BLOCK_SIZE = 4096;
/** Blocks per block group: one bitmap block has this many bits. */
export const BLOCKS_PER_GROUP = 8 * BLOCK_SIZE;
/** Most inodes a group may have: one bitmap block again. */
export const MAX_INODES_PER_GROUP = 8 * BLOCK_SIZE;
/** Bytes per inode on disk. */
export const INODE_SIZE = 256;
/** i_extra_isize: how far the fixed fields reach behind the old 128 bytes. */
export const EXTRA_ISIZE = 32;
/** Bytes per group descriptor with the 64bit feature. */
export const DESC_SIZE = 64;
/** Group descriptors per block. */
export const DESCS_PER_BLOCK = BLOCK_SIZE / DESC_SIZE;
/** First inode that is not reserved; lost+found by custom. */
export const FIRST_INODE = 11;
/** Inode of the root directory. */
export const ROOT_INODE = 2;
/** Inode that holds blocks for further descriptors. */
export const RESIZE_INODE = 7;
/** Inode of the journal. */
export const JOURNAL_INODE = 8;
/** Byte offset of the superblock in the image. */
export const SUPERBLOCK_OFFSET = 1024;
/** Bytes of the superblock. */
export const SUPERBLOCK_SIZE = 1024;
/** Most links of a file; directories beyond it count 1 (dir_nlink). */
export const LINK_MAX = 65_000;
/** Most blocks in one initialized extent. */
export const MAX_EXTENT_BLOCKS = 32_768;

/** s_feature_compat */
export const COMPAT = {
  hasJournal: 0x4,
  extAttr: 0x8,
  resizeInode: 0x10,
  dirIndex: 0x20,
  sparseSuper2: 0x200,
} as const;

/** s_feature_incompat */
export const INCOMPAT = {
  filetype: 0x2,
  recover: 0x4,
  metaBg: 0x10,
  extents: 0x40,
  bit64: 0x80,
  flexBg: 0x200,
} as const;

/** s_feature_ro_compat */
export const RO_COMPAT = {
  sparseSuper: 0x1,
  largeFile: 0x2,
  hugeFile: 0x8,
  dirNlink: 0x20,
  extraIsize: 0x40,
  metadataCsum: 0x400,
} as const;

/** bg_flags */
export const GROUP = { inodeUninit: 0x1, blockUninit: 0x2, inodeZeroed: 0x4 } as const;

/** i_flags */
export const INODE_FLAG = { index: 0x1000, hugeFile: 0x40000, extents: 0x80000 } as const;

/** What an inode is, in our words. */
export type InodeKind = "file" | "directory" | "symlink" | "char" | "block" | "fifo" | "socket";

/** The type bits of i_mode (POSIX S_IF*). */
export const MODE_TYPE: Record<InodeKind, number> = {
  fifo: 0x1000,
  char: 0x2000,
  directory: 0x4000,
  block: 0x6000,
  file: 0x8000,
  symlink: 0xa000,
  socket: 0xc000,
};

/** file_type of a directory entry. */
export const DIRENT_TYPE: Record<InodeKind, number> = {
  file: 1,
  directory: 2,
  char: 3,
  block: 4,
  fifo: 5,
  socket: 6,
  symlink: 7,
};
