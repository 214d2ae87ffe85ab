/**
 * Where the descriptors of a growing file system go.
 *
 * A disk with a resize inode takes the blocks that it has reserved for them, in the first group and
 * in each backup group. One without has only the free places of its last descriptor block; beyond
 * it, blocks of descriptors lie in the new groups themselves (meta_bg; kernel:
 * Documentation/filesystems/ext4/blockgroup.rst), so that nothing has to move.
 */
import { BLOCKS_PER_GROUP, COMPAT, DESCS_PER_BLOCK, INCOMPAT } from "./constants.ts";
import { backupGroups } from "./layout.ts";
import type { DecodedSuperblock } from "./superblock.ts";

/** Numbers of a file system with a resize inode after it has grown. */
export interface ReservedPlaces {
  descBlocks: number;
  reservedDescBlocks: number;
  backups: number[];
}

/** The places of descriptors after growing. */
export interface DescriptorPlaces {
  /** All places of the descriptor block with this index, the first one to be read. */
  placesOf(index: number): number[];
  /** Blocks at a new group's start that are not its own bitmaps and table. */
  ownBlocks(group: number): number;
  /** s_first_meta_bg, where meta_bg is used. */
  firstMetaBg: number | undefined;
  /** Where descriptor blocks are taken from those reserved. */
  reserved: ReservedPlaces | undefined;
  /** Descriptor blocks that have no place. */
  missing: number;
}

/** Places among the reserved blocks. */
function inReserved(
  sb: DecodedSuperblock,
  oldDescBlocks: number,
  groups: number,
): DescriptorPlaces {
  const descBlocks = Math.ceil(groups / DESCS_PER_BLOCK);
  const left = oldDescBlocks + sb.reservedGdtBlocks - descBlocks;
  const backups = backupGroups(groups);
  const isBackup = new Set(backups);
  const tooLarge = groups * BLOCKS_PER_GROUP >= 2 ** 32 ? 1 : 0;
  return {
    placesOf: (index) => [0, ...backups].map((group) => group * BLOCKS_PER_GROUP + 1 + index),
    ownBlocks: (group) => (isBackup.has(group) ? 1 + oldDescBlocks + sb.reservedGdtBlocks : 0),
    firstMetaBg: undefined,
    reserved: { descBlocks, reservedDescBlocks: Math.max(0, left), backups },
    missing: Math.max(0, -left, tooLarge),
  };
}

/** Places in the new groups. */
function inGroups(sb: DecodedSuperblock, oldDescBlocks: number, groups: number): DescriptorPlaces {
  const hadMeta = (sb.incompat & INCOMPAT.metaBg) !== 0;
  const firstMetaBg = hadMeta ? sb.firstMetaBg : oldDescBlocks;
  const meta = hadMeta || Math.ceil(groups / DESCS_PER_BLOCK) > oldDescBlocks;
  const isMeta = (index: number): boolean => meta && index >= firstMetaBg;
  return {
    placesOf(index) {
      if (!isMeta(index)) return [1 + index];
      const first = index * DESCS_PER_BLOCK;
      return [first, first + 1, first + DESCS_PER_BLOCK - 1]
        .filter((group) => group < groups)
        .map((group) => group * BLOCKS_PER_GROUP);
    },
    ownBlocks(group) {
      if (!isMeta(Math.floor(group / DESCS_PER_BLOCK))) return 0;
      return [0, 1, DESCS_PER_BLOCK - 1].includes(group % DESCS_PER_BLOCK) ? 1 : 0;
    },
    firstMetaBg: meta ? firstMetaBg : undefined,
    reserved: undefined,
    missing: 0,
  };
}

/** The places of descriptors when a file system grows from `oldGroups` to `groups` groups. */
export function descriptorPlaces(
  sb: DecodedSuperblock,
  oldGroups: number,
  groups: number,
): DescriptorPlaces {
  const oldDescBlocks = Math.ceil(oldGroups / DESCS_PER_BLOCK);
  return (sb.compat & COMPAT.resizeInode) === 0
    ? inGroups(sb, oldDescBlocks, groups)
    : inReserved(sb, oldDescBlocks, groups);
}
