/**
 * Block group descriptors and bitmaps (kernel: Documentation/filesystems/ext4/group_descr.rst,
 * bitmaps.rst).
 */
import { crc32c, crc32cWord } from "./crc32c.ts";
import { BLOCK_SIZE, DESC_SIZE } from "./constants.ts";

/** One group's descriptor. Bitmap checksums are 0 for uninitialized groups. */
export interface GroupDescriptor {
  blockBitmap: number;
  inodeBitmap: number;
  inodeTable: number;
  freeBlocks: number;
  freeInodes: number;
  usedDirs: number;
  flags: number;
  unusedInodes: number;
  blockBitmapChecksum: number;
  inodeBitmapChecksum: number;
}

/**
 * Write a descriptor, with its checksum, into a buffer of descriptors.
 * @param at byte offset in `bytes`
 * @param seed checksum seed of the file system
 * @param group its number, part of the checksum
 */
export function encodeGroup(
  bytes: Uint8Array,
  at: number,
  seed: number,
  group: number,
  desc: GroupDescriptor,
): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, DESC_SIZE);
  const pair32 = (low: number, high: number, value: number): void => {
    view.setUint32(low, value % 2 ** 32, true);
    view.setUint32(high, Math.floor(value / 2 ** 32), true);
  };
  const pair16 = (low: number, high: number, value: number): void => {
    view.setUint16(low, value & 0xffff, true);
    view.setUint16(high, value >>> 16, true);
  };
  pair32(0x0, 0x20, desc.blockBitmap);
  pair32(0x4, 0x24, desc.inodeBitmap);
  pair32(0x8, 0x28, desc.inodeTable);
  pair16(0xc, 0x2c, desc.freeBlocks);
  pair16(0xe, 0x2e, desc.freeInodes);
  pair16(0x10, 0x30, desc.usedDirs);
  view.setUint16(0x12, desc.flags, true);
  pair16(0x18, 0x38, desc.blockBitmapChecksum);
  pair16(0x1a, 0x3a, desc.inodeBitmapChecksum);
  pair16(0x1c, 0x32, desc.unusedInodes);
  view.setUint16(0x1e, 0, true);
  const crc = crc32c(crc32cWord(seed, group), bytes, at, at + DESC_SIZE);
  view.setUint16(0x1e, crc & 0xffff, true);
}

/** Read a descriptor; undefined when its checksum is wrong. */
export function decodeGroup(
  bytes: Uint8Array,
  at: number,
  seed: number,
  group: number,
): GroupDescriptor | undefined {
  // Not slice(): a Buffer would give a view.
  const copy = Uint8Array.from(bytes.subarray(at, at + DESC_SIZE));
  const view = new DataView(copy.buffer);
  const stored = view.getUint16(0x1e, true);
  view.setUint16(0x1e, 0, true);
  if ((crc32c(crc32cWord(seed, group), copy) & 0xffff) !== stored) return undefined;
  const pair32 = (low: number, high: number): number =>
    view.getUint32(low, true) + view.getUint32(high, true) * 2 ** 32;
  const pair16 = (low: number, high: number): number =>
    view.getUint16(low, true) | (view.getUint16(high, true) << 16);
  return {
    blockBitmap: pair32(0x0, 0x20),
    inodeBitmap: pair32(0x4, 0x24),
    inodeTable: pair32(0x8, 0x28),
    freeBlocks: pair16(0xc, 0x2c),
    freeInodes: pair16(0xe, 0x2e),
    usedDirs: pair16(0x10, 0x30),
    flags: view.getUint16(0x12, true),
    unusedInodes: pair16(0x1c, 0x32),
    blockBitmapChecksum: pair16(0x18, 0x38) >>> 0,
    inodeBitmapChecksum: pair16(0x1a, 0x3a) >>> 0,
  };
}

/** Set (`used` true) or clear the bits `from` … `to`−1 of a bitmap. */
export function markBits(bitmap: Uint8Array, from: number, to: number, used: boolean): void {
  let bit = from;
  while (bit < to) {
    const byte = bit >>> 3;
    if ((bit & 7) === 0 && to - bit >= 8) {
      const last = to >>> 3;
      bitmap.fill(used ? 0xff : 0, byte, last);
      bit = last * 8;
      continue;
    }
    const mask = 1 << (bit & 7);
    const old = bitmap[byte] ?? 0;
    bitmap[byte] = used ? old | mask : old & ~mask;
    bit++;
  }
}

/** A bitmap whose first `used` bits are set, and whose bits from `size` on are padding (1). */
export function prefixBitmap(used: number, size: number): Uint8Array {
  const bitmap = new Uint8Array(BLOCK_SIZE);
  markBits(bitmap, 0, used, true);
  markBits(bitmap, size, 8 * BLOCK_SIZE, true);
  return bitmap;
}
