/**
 * The resize inode (inode 7; e2fsprogs: lib/ext2fs/res_gdt.c): a file mapped by indirect blocks, whose
 * double-indirect block names the reserved descriptor blocks of the first group, each of which, as
 * an indirect block, names its copies in the backup groups. Resizing takes descriptor blocks from it.
 */
import { BLOCK_SIZE, BLOCKS_PER_GROUP } from "./constants.ts";
import type { Layout } from "./layout.ts";

/** Block numbers per indirect block. */
const POINTERS = BLOCK_SIZE / 4;
const DIRECT = 12;
/** Index of the double-indirect pointer in i_block. */
const DOUBLE = 13;

/** What inode 7 says, and the blocks that belong to it. */
export interface ResizeInode {
  /** i_block: 60 bytes. */
  block: Uint8Array;
  /** Bytes: the most that two levels of pointers reach. */
  size: number;
  /** Blocks of the inode, its copies in the backup groups included. */
  blocks: number;
  content: { block: number; bytes: Uint8Array }[];
}

/** Where an existing resize inode has its double-indirect block. @param block its i_block */
export function resizeBlockOf(block: Uint8Array): number {
  return new DataView(block.buffer, block.byteOffset, block.byteLength).getUint32(4 * DOUBLE, true);
}

/** The resize inode of a file system; undefined when it has none. */
export function resizeInode(
  layout: Pick<Layout, "resizeBlock" | "reservedDescBlocks" | "descBlocks" | "backups">,
): ResizeInode | undefined {
  const { resizeBlock, reservedDescBlocks, descBlocks, backups } = layout;
  if (resizeBlock === undefined) return undefined;
  const block = new Uint8Array(60);
  new DataView(block.buffer).setUint32(4 * DOUBLE, resizeBlock, true);
  const double = new DataView(new ArrayBuffer(BLOCK_SIZE));
  const reserved = new DataView(new ArrayBuffer(reservedDescBlocks * BLOCK_SIZE));
  const first = 1 + descBlocks;
  for (let i = 0; i < reservedDescBlocks; i++) {
    double.setUint32(4 * ((descBlocks + i) % POINTERS), first + i, true);
    backups.forEach((group, n) => {
      reserved.setUint32(i * BLOCK_SIZE + 4 * n, group * BLOCKS_PER_GROUP + first + i, true);
    });
  }
  return {
    block,
    size: (POINTERS * POINTERS + POINTERS + DIRECT) * BLOCK_SIZE,
    blocks: 1 + reservedDescBlocks * (1 + backups.length),
    content: [
      // One piece: the double-indirect block lies behind the reserved ones.
      { block: first, bytes: new Uint8Array(reserved.buffer) },
      { block: resizeBlock, bytes: new Uint8Array(double.buffer) },
    ],
  };
}
