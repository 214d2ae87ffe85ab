/**
 * Growing a disk made by this writer: only metadata is written, whatever the sizes.
 *
 * New groups get their bitmaps and inode table at their own start. Descriptors go into the free
 * places of the last descriptor block; beyond it, blocks of descriptors lie in the new groups
 * themselves (meta_bg), so that nothing has to move.
 */
import { open, type FileHandle } from "node:fs/promises";
import { VmsanError } from "../model/errors.ts";
import {
  BLOCK_SIZE,
  BLOCKS_PER_GROUP,
  COMPAT,
  DESC_SIZE,
  DESCS_PER_BLOCK,
  GROUP,
  INCOMPAT,
  INODE_SIZE,
  RO_COMPAT,
  SUPERBLOCK_OFFSET,
  SUPERBLOCK_SIZE,
} from "./constants.ts";
import { crc32c } from "./crc32c.ts";
import { decodeGroup, encodeGroup, markBits } from "./group.ts";
import { decodeSuperblock, sealSuperblock, type DecodedSuperblock } from "./superblock.ts";

/** The error for a disk that cannot be grown here. */
function cannotGrow(path: string, why: string, fix: string): VmsanError {
  return new VmsanError({
    code: "ERR_DISK_GROW",
    message: `Cannot grow the disk ${path}`,
    why,
    fix,
  });
}

/** Read exactly `length` bytes. */
async function readAt(file: FileHandle, offset: number, length: number): Promise<Buffer> {
  const bytes = Buffer.alloc(length);
  const { bytesRead } = await file.read(bytes, 0, length, offset);
  if (bytesRead !== length) throw new RangeError(`read ${bytesRead} of ${length} bytes`);
  return bytes;
}

/** Refuse file systems whose state or features would make the result wrong. */
function checkGrowable(path: string, sb: DecodedSuperblock | undefined): DecodedSuperblock {
  if (sb === undefined) {
    throw cannotGrow(path, "It holds no ext4 file system.", "Make a new disk.");
  }
  if ((sb.incompat & INCOMPAT.recover) !== 0 || (sb.state & 1) === 0) {
    throw cannotGrow(
      path,
      "Its journal has changes that are not in their places yet: the VM was not shut down.",
      `Start and stop the VM once, or run: e2fsck -fp ${path}`,
    );
  }
  const ours =
    sb.blockSize === BLOCK_SIZE &&
    sb.descSize === DESC_SIZE &&
    sb.inodeSize === INODE_SIZE &&
    sb.blocksPerGroup === BLOCKS_PER_GROUP &&
    (sb.compat & COMPAT.sparseSuper2) !== 0 &&
    (sb.compat & COMPAT.resizeInode) === 0 &&
    (sb.roCompat & RO_COMPAT.metadataCsum) !== 0;
  if (!ours) {
    throw cannotGrow(path, "Another program made its file system.", `Run: resize2fs ${path}`);
  }
  return sb;
}

/** Blocks at the start of a group that hold a copy of its descriptor block (meta_bg). */
function metaBlocks(group: number, firstMetaBg: number, meta: boolean): number {
  if (!meta || Math.floor(group / DESCS_PER_BLOCK) < firstMetaBg) return 0;
  const place = group % DESCS_PER_BLOCK;
  return place === 0 || place === 1 || place === DESCS_PER_BLOCK - 1 ? 1 : 0;
}

/**
 * Grow the file system at `path`, and its file, to `sizeBytes` (a multiple of 4096). It must be
 * unmounted, cleanly shut down, and made by this writer. A last group too small for its own tables
 * is left unused. Throws ERR_DISK_GROW; the superblock is written last.
 * @returns the size of the file system in bytes: `sizeBytes`, or up to 2.1 MiB less
 */
export async function growDisk(path: string, sizeBytes: number): Promise<number> {
  const file = await open(path, "r+");
  try {
    const raw = await readAt(file, SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE);
    const sb = checkGrowable(path, decodeSuperblock(raw));
    const old = sb.blocks;
    let blocks = sizeBytes / BLOCK_SIZE;
    if (!Number.isSafeInteger(blocks) || blocks < old) {
      throw cannotGrow(
        path,
        `${sizeBytes} bytes is less than it has, or no multiple of ${BLOCK_SIZE}.`,
        "Choose a larger size.",
      );
    }
    const tableBlocks = (sb.inodesPerGroup * INODE_SIZE) / BLOCK_SIZE;
    const oldGroups = Math.ceil(old / BLOCKS_PER_GROUP);
    let groups = Math.ceil(blocks / BLOCKS_PER_GROUP);
    const lastSize = blocks - (groups - 1) * BLOCKS_PER_GROUP;
    // One block for descriptors, two bitmaps, and something to gain.
    if (groups > oldGroups && lastSize < tableBlocks + 3 + 16) {
      groups--;
      blocks = groups * BLOCKS_PER_GROUP;
    }
    if (blocks <= old) return old * BLOCK_SIZE;
    await file.truncate(Math.max(sizeBytes, (await file.stat()).size));

    const seed = crc32c(0xffffffff, sb.uuid);
    const hadMeta = (sb.incompat & INCOMPAT.metaBg) !== 0;
    const oldDescBlocks = Math.ceil(oldGroups / DESCS_PER_BLOCK);
    const firstMetaBg = hadMeta ? sb.firstMetaBg : oldDescBlocks;
    const meta = hadMeta || Math.ceil(groups / DESCS_PER_BLOCK) > oldDescBlocks;
    /** Places of all copies of the descriptor block that a group's descriptor is in. */
    const descPlaces = (group: number): number[] => {
      const index = Math.floor(group / DESCS_PER_BLOCK);
      if (!meta || index < firstMetaBg) return [1 + index];
      const first = index * DESCS_PER_BLOCK;
      return [first, first + 1, first + DESCS_PER_BLOCK - 1]
        .filter((g) => g < groups)
        .map((g) => g * BLOCKS_PER_GROUP);
    };
    const descBlocks = new Map<number, Buffer>();
    const descBlock = async (group: number): Promise<Buffer> => {
      const index = Math.floor(group / DESCS_PER_BLOCK);
      const known = descBlocks.get(index);
      if (known !== undefined) return known;
      const isOld = index * DESCS_PER_BLOCK < oldGroups;
      const block = isOld
        ? await readAt(file, (descPlaces(group)[0] ?? 0) * BLOCK_SIZE, BLOCK_SIZE)
        : Buffer.alloc(BLOCK_SIZE);
      descBlocks.set(index, block);
      return block;
    };
    const sizeOf = (group: number, total: number): number =>
      Math.min(BLOCKS_PER_GROUP, total - group * BLOCKS_PER_GROUP);

    // The old last group may have become larger; its padding bits become free blocks.
    let free = sb.freeBlocks;
    const lastOld = oldGroups - 1;
    const lastBlock = await descBlock(lastOld);
    const lastAt = (lastOld % DESCS_PER_BLOCK) * DESC_SIZE;
    const last = decodeGroup(lastBlock, lastAt, seed, lastOld);
    if (last === undefined) {
      throw cannotGrow(path, "A group descriptor's checksum is wrong.", `Run: e2fsck -f ${path}`);
    }
    const gained = sizeOf(lastOld, blocks) - sizeOf(lastOld, old);
    if (gained > 0) {
      const bitmap = await readAt(file, last.blockBitmap * BLOCK_SIZE, BLOCK_SIZE);
      markBits(bitmap, sizeOf(lastOld, old), sizeOf(lastOld, blocks), false);
      await file.write(bitmap, 0, BLOCK_SIZE, last.blockBitmap * BLOCK_SIZE);
      last.freeBlocks += gained;
      last.blockBitmapChecksum = crc32c(seed, bitmap);
      encodeGroup(lastBlock, lastAt, seed, lastOld, last);
      free += gained;
    }
    for (let group = oldGroups; group < groups; group++) {
      const start = group * BLOCKS_PER_GROUP;
      const own = metaBlocks(group, firstMetaBg, meta);
      const size = sizeOf(group, blocks);
      const used = own + 2 + tableBlocks;
      const blockBitmap = start + own;
      let flags: number = GROUP.inodeUninit | GROUP.inodeZeroed;
      let checksum = 0;
      if (group === groups - 1) {
        const bitmap = Buffer.alloc(BLOCK_SIZE);
        markBits(bitmap, 0, used, true);
        markBits(bitmap, size, BLOCKS_PER_GROUP, true);
        await file.write(bitmap, 0, BLOCK_SIZE, blockBitmap * BLOCK_SIZE);
        checksum = crc32c(seed, bitmap);
      } else flags |= GROUP.blockUninit;
      free += size - used;
      encodeGroup(await descBlock(group), (group % DESCS_PER_BLOCK) * DESC_SIZE, seed, group, {
        blockBitmap,
        inodeBitmap: blockBitmap + 1,
        inodeTable: blockBitmap + 2,
        freeBlocks: size - used,
        freeInodes: sb.inodesPerGroup,
        usedDirs: 0,
        flags,
        unusedInodes: sb.inodesPerGroup,
        blockBitmapChecksum: checksum,
        inodeBitmapChecksum: 0,
      });
    }
    for (const [index, block] of descBlocks) {
      for (const place of descPlaces(index * DESCS_PER_BLOCK)) {
        await file.write(block, 0, BLOCK_SIZE, place * BLOCK_SIZE);
      }
    }
    const view = new DataView(raw.buffer, raw.byteOffset, SUPERBLOCK_SIZE);
    view.setUint32(0x0, sb.inodesPerGroup * groups, true);
    view.setUint32(0x4, blocks % 2 ** 32, true);
    view.setUint32(0x150, Math.floor(blocks / 2 ** 32), true);
    view.setUint32(0xc, free % 2 ** 32, true);
    view.setUint32(0x158, Math.floor(free / 2 ** 32), true);
    view.setUint32(0x10, sb.freeInodes + sb.inodesPerGroup * (groups - oldGroups), true);
    if (meta) {
      view.setUint32(0x60, sb.incompat | INCOMPAT.metaBg, true);
      view.setUint32(0x104, firstMetaBg, true);
    }
    sealSuperblock(raw);
    await file.sync();
    await file.write(raw, 0, SUPERBLOCK_SIZE, SUPERBLOCK_OFFSET);
    await file.sync();
    return blocks * BLOCK_SIZE;
  } finally {
    await file.close();
  }
}
