/**
 * Growing a disk made by this writer: only metadata is written, whatever the sizes.
 *
 * New groups get their bitmaps and inode table at their own start; grow-places.ts says where their
 * descriptors go.
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
  RESIZE_INODE,
  RO_COMPAT,
  SUPERBLOCK_OFFSET,
  SUPERBLOCK_SIZE,
} from "./constants.ts";
import { crc32c } from "./crc32c.ts";
import { decodeGroup, encodeGroup, markBits } from "./group.ts";
import { descriptorPlaces, type DescriptorPlaces, type ReservedPlaces } from "./grow-places.ts";
import { inodeSeed, inodeTable, sealInode } from "./inodes/inode.ts";
import { resizeBlockOf, resizeInode } from "./resize-inode.ts";
import {
  backupSuperblock,
  decodeSuperblock,
  sealSuperblock,
  type DecodedSuperblock,
} from "./superblock.ts";

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
    ((sb.compat & COMPAT.sparseSuper2) !== 0) !== ((sb.compat & COMPAT.resizeInode) !== 0) &&
    (sb.roCompat & RO_COMPAT.metadataCsum) !== 0;
  if (!ours) {
    throw cannotGrow(path, "Another program made its file system.", `Run: resize2fs ${path}`);
  }
  return sb;
}

/** All descriptor blocks, those of new groups empty. */
async function readDescriptors(
  file: FileHandle,
  places: DescriptorPlaces,
  oldGroups: number,
  groups: number,
): Promise<Buffer[]> {
  const blocks: Buffer[] = [];
  for (let index = 0; index * DESCS_PER_BLOCK < groups; index++) {
    const known = index * DESCS_PER_BLOCK < oldGroups;
    const place = places.placesOf(index)[0] ?? 0;
    blocks.push(
      known ? await readAt(file, place * BLOCK_SIZE, BLOCK_SIZE) : Buffer.alloc(BLOCK_SIZE),
    );
  }
  return blocks;
}

/** Write the resize inode anew, with what is still reserved. */
async function growResizeInode(
  file: FileHandle,
  seed: number,
  descriptors: Buffer,
  reserved: ReservedPlaces,
): Promise<void> {
  const desc = decodeGroup(descriptors, 0, seed, 0);
  if (desc === undefined) throw new RangeError("the first group descriptor's checksum is wrong");
  const at = desc.inodeTable * BLOCK_SIZE + (RESIZE_INODE - 1) * INODE_SIZE;
  const inode = await readAt(file, at, INODE_SIZE);
  const resizeBlock = resizeBlockOf(inode.subarray(0x28, 0x64));
  const found = resizeInode({ ...reserved, resizeBlock });
  for (const { block, bytes } of found?.content ?? []) {
    await file.write(bytes, 0, bytes.length, block * BLOCK_SIZE);
  }
  inode.writeUInt32LE((found?.blocks ?? 0) * (BLOCK_SIZE / 512), 0x1c);
  sealInode(inodeTable(inode), 0, inodeSeed(seed, RESIZE_INODE), true);
  await file.write(inode, 0, INODE_SIZE, at);
}

/**
 * Grow the file system at `path`, and its file, to `sizeBytes` (a multiple of 4096). It must be
 * unmounted, cleanly shut down, and made by this writer. A last group too small for its own tables
 * is left unused. Several gigabytes can be added to any disk, and a hundredfold to most. Throws ERR_DISK_GROW; the superblock is written last.
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
    let places = descriptorPlaces(sb, oldGroups, groups);
    const lastSize = blocks - (groups - 1) * BLOCKS_PER_GROUP;
    // Its own metadata, and something to gain.
    if (groups > oldGroups && lastSize < places.ownBlocks(groups - 1) + 2 + tableBlocks + 16) {
      groups--;
      blocks = groups * BLOCKS_PER_GROUP;
      places = descriptorPlaces(sb, oldGroups, groups);
    }
    if (blocks <= old) return old * BLOCK_SIZE;
    if (places.missing > 0) {
      throw cannotGrow(
        path,
        "It has no room for the descriptors of so many block groups.",
        `Choose a smaller size, or run: resize2fs ${path}`,
      );
    }
    await file.truncate(Math.max(sizeBytes, (await file.stat()).size));

    const seed = crc32c(0xffffffff, sb.uuid);
    const descBlocks = await readDescriptors(file, places, oldGroups, groups);
    const descBlock = (group: number): Buffer => {
      const block = descBlocks[Math.floor(group / DESCS_PER_BLOCK)];
      if (block === undefined) throw new RangeError(`no descriptor block for group ${group}`);
      return block;
    };
    const sizeOf = (group: number, total: number): number =>
      Math.min(BLOCKS_PER_GROUP, total - group * BLOCKS_PER_GROUP);

    // The old last group may have become larger; its padding bits become free blocks.
    let free = sb.freeBlocks;
    const lastOld = oldGroups - 1;
    const lastBlock = descBlock(lastOld);
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
      const own = places.ownBlocks(group);
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
      encodeGroup(descBlock(group), (group % DESCS_PER_BLOCK) * DESC_SIZE, seed, group, {
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
    for (const [index, block] of descBlocks.entries()) {
      for (const place of places.placesOf(index)) {
        await file.write(block, 0, BLOCK_SIZE, place * BLOCK_SIZE);
      }
    }
    if (places.reserved !== undefined) {
      await growResizeInode(file, seed, descBlock(0), places.reserved);
    }
    const view = new DataView(raw.buffer, raw.byteOffset, SUPERBLOCK_SIZE);
    view.setUint32(0x0, sb.inodesPerGroup * groups, true);
    view.setUint32(0x4, blocks % 2 ** 32, true);
    view.setUint32(0x150, Math.floor(blocks / 2 ** 32), true);
    view.setUint32(0xc, free % 2 ** 32, true);
    view.setUint32(0x158, Math.floor(free / 2 ** 32), true);
    view.setUint32(0x10, sb.freeInodes + sb.inodesPerGroup * (groups - oldGroups), true);
    if (places.firstMetaBg !== undefined) {
      view.setUint32(0x60, sb.incompat | INCOMPAT.metaBg, true);
      view.setUint32(0x104, places.firstMetaBg, true);
    }
    if (places.reserved !== undefined) {
      view.setUint16(0xce, places.reserved.reservedDescBlocks, true);
    }
    sealSuperblock(raw);
    for (const group of places.reserved?.backups ?? []) {
      const copy = backupSuperblock(raw, group);
      await file.write(copy, 0, SUPERBLOCK_SIZE, group * BLOCKS_PER_GROUP * BLOCK_SIZE);
    }
    await file.sync();
    await file.write(raw, 0, SUPERBLOCK_SIZE, SUPERBLOCK_OFFSET);
    await file.sync();
    return blocks * BLOCK_SIZE;
  } finally {
    await file.close();
  }
}
