/** An empty journal (kernel: Documentation/filesystems/ext4/journal.rst). Big-endian. */
import { BLOCK_SIZE } from "./constants.ts";

/** Largest journal made here: 64 MiB, as e2fsprogs makes for 2–16 GiB. */
const MOST = 16_384;

/** Blocks of journal for a disk of so many blocks (e2fsprogs' table, up to 64 MiB); 0: too small. */
export function journalBlocks(blocks: number): number {
  if (blocks < 2048) return 0;
  if (blocks < 32_768) return 1024;
  if (blocks < 256 * 1024) return 4096;
  if (blocks < 512 * 1024) return 8192;
  return MOST;
}

/** The journal's first block. Start 0 says that it is empty, so no other block need be written. */
export function encodeJournalSuperblock(blocks: number): Uint8Array {
  const bytes = new Uint8Array(BLOCK_SIZE);
  const view = new DataView(bytes.buffer);
  view.setUint32(0x0, 0xc03b3998);
  view.setUint32(0x4, 4); // superblock, version 2
  view.setUint32(0xc, BLOCK_SIZE);
  view.setUint32(0x10, blocks);
  view.setUint32(0x14, 1); // first usable block
  view.setUint32(0x18, 1); // first sequence number
  view.setUint32(0x40, 1); // users
  return bytes;
}
