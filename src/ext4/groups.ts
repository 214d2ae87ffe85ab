/** Descriptors and bitmaps of all groups of a freshly written file system. */
import { BLOCK_SIZE, BLOCKS_PER_GROUP, DESC_SIZE, DESCS_PER_BLOCK, GROUP } from "./constants.ts";
import { crc32c } from "./crc32c.ts";
import { encodeGroup, markBits, prefixBitmap } from "./group.ts";

/**
 * What the tables are computed from. Blocks in use are a prefix of the disk but for `freed`, and
 * the copies of superblock and descriptors in the groups behind it.
 */
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
  /** Groups that begin with copies, and blocks of each copy. */
  backups: readonly number[];
  copyBlocks: number;
  /** Each group's block bitmap, inode bitmap and first block of its inode table. */
  blockBitmaps: ArrayLike<number>;
  inodeBitmaps: ArrayLike<number>;
  inodeTables: ArrayLike<number>;
}

/** A block to be written. */
interface PlacedBlock {
  block: number;
  bytes: Uint8Array;
}

/** Bytes to write, and the totals for the superblock. */
export interface GroupTables {
  descriptors: Uint8Array;
  /** Pieces of one or more blocks. */
  bitmaps: PlacedBlock[];
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

/** Neighbouring blocks as one piece. */
function joined(blocks: PlacedBlock[]): PlacedBlock[] {
  const pieces: { block: number; parts: Uint8Array[] }[] = [];
  for (const { block, bytes } of blocks.toSorted((a, b) => a.block - b.block)) {
    const last = pieces.at(-1);
    if (last !== undefined && last.block + last.parts.length === block) last.parts.push(bytes);
    else pieces.push({ block, parts: [bytes] });
  }
  return pieces.map(({ block, parts }) => ({ block, bytes: Buffer.concat(parts) }));
}

/** Compute descriptors and bitmaps. Groups without anything in them get no bitmap (UNINIT). */
export function encodeGroups(input: GroupsInput): GroupTables {
  const { seed, blocks, groups, perGroup, usedBlocks, lastInode } = input;
  const descriptors = new Uint8Array(Math.ceil(groups / DESCS_PER_BLOCK) * BLOCK_SIZE);
  const bitmaps: PlacedBlock[] = [];
  const backups = new Set(input.backups);
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
    const before = clamp(usedBlocks - group * BLOCKS_PER_GROUP, size);
    const used = Math.max(before, backups.has(group) ? input.copyBlocks : 0);
    let free = size - used;
    let flags: number = GROUP.inodeZeroed;
    let blockChecksum = 0;
    // The last group must have its bitmap: its padding bits say where the disk ends. Copies alone
    // need none: everybody knows where they are.
    if (before === 0 && group !== groups - 1) flags |= GROUP.blockUninit;
    else {
      const bitmap = prefixBitmap(used, size);
      const ranges = freedRanges.get(group) ?? [];
      for (const [from, to] of ranges) {
        markBits(bitmap, from, to, false);
        free += to - from;
      }
      bitmaps.push({ block: input.blockBitmaps[group] ?? 0, bytes: bitmap });
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
      bitmaps.push({ block: input.inodeBitmaps[group] ?? 0, bytes: bitmap });
      inodeChecksum = crc32c(seed, bitmap, 0, perGroup / 8);
    }
    encodeGroup(descriptors, group * DESC_SIZE, seed, group, {
      blockBitmap: input.blockBitmaps[group] ?? 0,
      inodeBitmap: input.inodeBitmaps[group] ?? 0,
      inodeTable: input.inodeTables[group] ?? 0,
      freeBlocks: free,
      freeInodes: perGroup - usedInodes,
      usedDirs: directories[group] ?? 0,
      flags,
      unusedInodes: perGroup - usedInodes,
      blockBitmapChecksum: blockChecksum,
      inodeBitmapChecksum: inodeChecksum,
    });
  }
  return { descriptors, bitmaps: joined(bitmaps), freeBlocks: freeTotal };
}
