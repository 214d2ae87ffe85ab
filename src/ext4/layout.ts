/**
 * What of a file system lies at fixed places, decided before any content is known.
 *
 * Read-only images have nothing but superblock and descriptors in front (sparse_super2 without
 * backups): contents lie in one piece. Disks with a journal are written by guests, so they are as
 * mkfs.ext4 makes them: copies of superblock and descriptors in the groups that sparse_super names
 * (kernel: Documentation/filesystems/ext4/blockgroup.rst), and room behind each for the descriptors
 * of further groups, which the resize inode holds, so that the kernel can grow them while mounted.
 */
import { BLOCK_SIZE, BLOCKS_PER_GROUP, DESCS_PER_BLOCK } from "./constants.ts";
import { journalBlocks } from "./journal.ts";

/** Fixed places of a file system; all numbers are blocks unless they say otherwise. */
export interface Layout {
  /** Blocks of the file system: a last group too small for its own copies is left out. */
  blocks: number;
  /** Number of groups. */
  groups: number;
  /** Blocks of group descriptors, behind the superblock's. */
  descBlocks: number;
  /** Blocks reserved for further descriptors, behind them. */
  reservedDescBlocks: number;
  /** Groups that begin with a copy of superblock, descriptors and reserved blocks. */
  backups: readonly number[];
  /** Blocks of each such copy. */
  copyBlocks: number;
  /** The resize inode's double-indirect block, if there are reserved blocks. */
  resizeBlock: number | undefined;
  journal: { first: number; blocks: number } | undefined;
  /** First block that is free for contents. */
  first: number;
}

/** Least and most blocks reserved for descriptors; each stands for 8 GiB of growth. */
const RESERVED = { least: 63, most: 256 } as const;
/** Growth to be prepared for, in multiples of the size. */
const GROWTH = 100;
/** Least room for files in a last group that has copies to hold. */
const WORTHWHILE = 64;

/** Groups below `groups`, but for the first, that sparse_super gives copies: 1, powers of 3, 5, 7. */
export function backupGroups(groups: number): number[] {
  const found = groups > 1 ? [1] : [];
  for (const base of [3, 5, 7]) {
    for (let group = base; group < groups; group *= base) found.push(group);
  }
  return found.sort((a, b) => a - b);
}

/** Decide the places for a disk of `sizeBytes` (a multiple of 4096). */
export function planLayout(sizeBytes: number, withJournal: boolean): Layout {
  let blocks = sizeBytes / BLOCK_SIZE;
  const journalSize = withJournal ? journalBlocks(blocks) : 0;
  let groups = Math.ceil(blocks / BLOCKS_PER_GROUP);
  const descBlocks = Math.ceil(groups / DESCS_PER_BLOCK);
  if (journalSize === 0) {
    return {
      blocks,
      groups,
      descBlocks,
      reservedDescBlocks: 0,
      backups: [],
      copyBlocks: 0,
      resizeBlock: undefined,
      journal: undefined,
      first: 1 + descBlocks,
    };
  }
  const wanted = Math.ceil((groups * GROWTH) / DESCS_PER_BLOCK);
  // The resize inode has block numbers of 32 bits: it is no use for disks near 16 TiB.
  const reservedDescBlocks =
    blocks >= 2 ** 31 ? 0 : Math.min(Math.max(wanted, RESERVED.least), RESERVED.most);
  const copyBlocks = 1 + descBlocks + reservedDescBlocks;
  let backups = backupGroups(groups);
  const lastSize = blocks - (groups - 1) * BLOCKS_PER_GROUP;
  if (backups.at(-1) === groups - 1 && lastSize < copyBlocks + WORTHWHILE) {
    groups--;
    blocks = groups * BLOCKS_PER_GROUP;
    backups = backups.slice(0, -1);
  }
  let next = copyBlocks;
  const resizeBlock = reservedDescBlocks > 0 ? next++ : undefined;
  const journal = { first: next, blocks: journalSize };
  return {
    blocks,
    groups,
    descBlocks: Math.ceil(groups / DESCS_PER_BLOCK),
    reservedDescBlocks,
    backups,
    copyBlocks: 1 + Math.ceil(groups / DESCS_PER_BLOCK) + reservedDescBlocks,
    resizeBlock,
    journal,
    first: next + journalSize,
  };
}
