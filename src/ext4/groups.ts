/** Descriptors and bitmaps of all groups of a freshly written file system. */
import {
  BLOCK_SIZE,
  BLOCKS_PER_GROUP,
  DESC_SIZE,
  DESCS_PER_BLOCK,
  GROUP,
  INODE_SIZE,
} from "./constants.ts";
import { crc32c } from "./crc32c.ts";
import { encodeGroup, markBits, prefixBitmap } from "./group.ts";

/** What the tables are computed from. Blocks in use are a prefix of the disk but for `freed`. */
export interface GroupsInput {
  seed: number;
  blocks: number;
  groups: number;
  /** Inodes per group, a multiple of 16. */
  perGroup: number;
  /** Blocks 0 … usedBlocks−1 are in use … */
  usedBlocks: number;
  /** … except these: pairs of first block and count. */
  freed: readonly number[];
  /** Inodes 1 … lastInode are in use. */
  lastInode: number;
  directories: readonly number[];
  /** First blocks of the three kinds of table; each lies in group order, without gaps. */
  blockBitmaps: number;
  inodeBitmaps: number;
  inodeTables: number;
}

/** Bytes to write, and the totals for the superblock. */
export interface GroupTables {
  descriptors: Uint8Array;
  bitmaps: { block: number; bytes: Uint8Array }[];
  freeBlocks: number;
}

/** Freed blocks by group: ranges of bits. */
function freedByGroup(freed: readonly number[]): Map<number, [number, number][]> {
  const byGroup = new Map<number, [number, number][]>();
  for (let i = 0; i < freed.length; i += 2) {
    const end = (freed[i] ?? 0) + (freed[i + 1] ?? 0);
    for (let from = freed[i] ?? 0; from < end;) {
      const group = Math.floor(from / BLOCKS_PER_GROUP);
      const to = Math.min(end, (group + 1) * BLOCKS_PER_GROUP);
      const ranges = byGroup.get(group) ?? [];
      ranges.push([from - group * BLOCKS_PER_GROUP, to - group * BLOCKS_PER_GROUP]);
      byGroup.set(group, ranges);
      from = to;
    }
  }
  return byGroup;
}

/** Compute descriptors and bitmaps. Groups without anything in them get no bitmap (UNINIT). */
export function encodeGroups(input: GroupsInput): GroupTables {
  const { seed, blocks, groups, perGroup, usedBlocks, lastInode } = input;
  const descriptors = new Uint8Array(Math.ceil(groups / DESCS_PER_BLOCK) * BLOCK_SIZE);
  const usedGroups = Math.ceil(usedBlocks / BLOCKS_PER_GROUP);
  const inodeGroups = Math.ceil(lastInode / perGroup);
  const blockBitmaps = new Uint8Array(usedGroups * BLOCK_SIZE);
  const inodeBitmaps = new Uint8Array(inodeGroups * BLOCK_SIZE);
  const bitmaps: GroupTables["bitmaps"] = [
    { block: input.blockBitmaps, bytes: blockBitmaps },
    { block: input.inodeBitmaps, bytes: inodeBitmaps },
  ];
  const freedRanges = freedByGroup(input.freed);
  const directories = new Uint32Array(groups);
  for (const inode of input.directories) {
    const group = Math.floor((inode - 1) / perGroup);
    directories[group] = (directories[group] ?? 0) + 1;
  }
  const clamp = (value: number, most: number): number => Math.min(Math.max(value, 0), most);
  let freeTotal = 0;
  let fullChecksum: number | undefined;
  for (let group = 0; group < groups; group++) {
    const size = Math.min(BLOCKS_PER_GROUP, blocks - group * BLOCKS_PER_GROUP);
    const used = clamp(usedBlocks - group * BLOCKS_PER_GROUP, size);
    let free = size - used;
    let flags: number = GROUP.inodeZeroed;
    let blockChecksum = 0;
    // The last group must have its bitmap: its padding bits say where the disk ends.
    if (used === 0 && group !== groups - 1) flags |= GROUP.blockUninit;
    else {
      const bitmap = prefixBitmap(used, size);
      const ranges = freedRanges.get(group) ?? [];
      for (const [from, to] of ranges) {
        markBits(bitmap, from, to, false);
        free += to - from;
      }
      if (group < usedGroups) blockBitmaps.set(bitmap, group * BLOCK_SIZE);
      else bitmaps.push({ block: input.blockBitmaps + group, bytes: bitmap });
      if (free === 0) fullChecksum ??= crc32c(seed, bitmap);
      blockChecksum =
        free === 0 && fullChecksum !== undefined ? fullChecksum : crc32c(seed, bitmap);
    }
    freeTotal += free;

    const usedInodes = clamp(lastInode - group * perGroup, perGroup);
    let inodeChecksum = 0;
    if (usedInodes === 0) flags |= GROUP.inodeUninit;
    else {
      const bitmap = prefixBitmap(usedInodes, perGroup);
      inodeBitmaps.set(bitmap, group * BLOCK_SIZE);
      inodeChecksum = crc32c(seed, bitmap, 0, perGroup / 8);
    }
    encodeGroup(descriptors, group * DESC_SIZE, seed, group, {
      blockBitmap: input.blockBitmaps + group,
      inodeBitmap: input.inodeBitmaps + group,
      inodeTable: input.inodeTables + (group * perGroup * INODE_SIZE) / BLOCK_SIZE,
      freeBlocks: free,
      freeInodes: perGroup - usedInodes,
      usedDirs: directories[group] ?? 0,
      flags,
      unusedInodes: perGroup - usedInodes,
      blockBitmapChecksum: blockChecksum,
      inodeBitmapChecksum: inodeChecksum,
    });
  }
  return { descriptors, bitmaps, freeBlocks: freeTotal };
}
