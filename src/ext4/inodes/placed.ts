/** What the blocks of inodes have become, by node, until the inodes themselves are written. */
import { grow } from "../../util/file-tree/column.ts";

/** Bytes of i_block. */
export const I_BLOCK_SIZE = 60;

/** What an inode says of blocks outside of it. */
export interface PlacedBlocks {
  /** i_block: extent tree, fast symlink or device number; undefined when it is written already. */
  block: Uint8Array | undefined;
  /** Bytes of its content. */
  size: number;
  /** 4096-byte blocks, extent and attribute blocks included. */
  blocks: number;
  flags: number;
  /** Attribute block, 0 without. */
  xattrBlock: number;
}

/** Those of all inodes that have more than the blocks of a content. Some 90 bytes each. */
export class PlacedTable {
  private count = 0;
  /** By node: its row, from 1 on; 0 for none. */
  private readonly rows: Uint32Array;
  // By row.
  private iBlocks = new Uint8Array(64 * I_BLOCK_SIZE);
  private sizes = new Float64Array(64);
  private blocks = new Float64Array(64);
  private xattrBlocks = new Float64Array(64);
  private flags = new Uint32Array(64);

  /** @param nodes highest number of a node */
  constructor(nodes: number) {
    this.rows = new Uint32Array(nodes + 1);
  }

  /** Remember an inode's blocks; i_block is copied. */
  set(node: number, placed: PlacedBlocks): void {
    const row = ++this.count;
    this.rows[node] = row;
    this.iBlocks = grow(this.iBlocks, (row + 1) * I_BLOCK_SIZE);
    this.sizes = grow(this.sizes, row + 1);
    this.blocks = grow(this.blocks, row + 1);
    this.xattrBlocks = grow(this.xattrBlocks, row + 1);
    this.flags = grow(this.flags, row + 1);
    if (placed.block !== undefined) this.iBlocks.set(placed.block, row * I_BLOCK_SIZE);
    this.sizes[row] = placed.size;
    this.blocks[row] = placed.blocks;
    this.xattrBlocks[row] = placed.xattrBlock;
    this.flags[row] = placed.flags;
  }

  /** What was remembered; undefined when there was nothing to remember. */
  get(node: number): PlacedBlocks | undefined {
    const row = this.rows[node] ?? 0;
    if (row === 0) return undefined;
    return {
      block: this.iBlocks.subarray(row * I_BLOCK_SIZE, (row + 1) * I_BLOCK_SIZE),
      size: this.sizes[row] ?? 0,
      blocks: this.blocks[row] ?? 0,
      flags: this.flags[row] ?? 0,
      xattrBlock: this.xattrBlocks[row] ?? 0,
    };
  }
}
