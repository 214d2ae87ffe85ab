/**
 * Extent trees (kernel: Documentation/filesystems/ext4/ifork.rst): which blocks of the disk hold
 * which blocks of a file. Blocks that no extent names are holes.
 */
import { crc32c } from "../crc32c.ts";
import { BLOCK_SIZE } from "../constants.ts";

/** Flat triples: logical block, physical block, count (at most 32,768), ascending. */
export type Extents = ArrayLike<number>;

const MAGIC = 0xf30a;
const HEADER = 12;
const ENTRY = 12;
/** Entries in the 60 bytes of i_block. */
export const IN_INODE = 4;
/** Entries in an extent block, whose last four bytes are its checksum. */
const PER_BLOCK = Math.floor((BLOCK_SIZE - HEADER - 4) / ENTRY);

/** Number of blocks the extents cover. */
export function countBlocks(extents: Extents): number {
  let blocks = 0;
  for (let i = 2; i < extents.length; i += 3) blocks += extents[i] ?? 0;
  return blocks;
}

/** Append an extent to triples, joined with the last one where they touch. */
export function appendExtent(
  extents: number[],
  logical: number,
  physical: number,
  count: number,
  most: number,
): void {
  const at = extents.length - 3;
  const lastCount = extents[at + 2];
  if (
    lastCount !== undefined &&
    (extents[at] ?? 0) + lastCount === logical &&
    (extents[at + 1] ?? 0) + lastCount === physical &&
    lastCount + count <= most
  ) {
    extents[at + 2] = lastCount + count;
    return;
  }
  extents.push(logical, physical, count);
}

/** Header of a node. */
function header(view: DataView, at: number, entries: number, max: number, depth: number): void {
  view.setUint16(at, MAGIC, true);
  view.setUint16(at + 2, entries, true);
  view.setUint16(at + 4, max, true);
  view.setUint16(at + 6, depth, true);
  view.setUint32(at + 8, 0, true);
}

/** A leaf entry: where a run of blocks is. */
function leaf(view: DataView, at: number, extents: Extents, index: number): void {
  const physical = extents[3 * index + 1] ?? 0;
  view.setUint32(at, extents[3 * index] ?? 0, true);
  view.setUint16(at + 4, extents[3 * index + 2] ?? 0, true);
  view.setUint16(at + 6, Math.floor(physical / 2 ** 32), true);
  view.setUint32(at + 8, physical % 2 ** 32, true);
}

/** An index entry: where a child node is, and its first logical block. */
function index(view: DataView, at: number, logical: number, block: number): void {
  view.setUint32(at, logical, true);
  view.setUint32(at + 4, block % 2 ** 32, true);
  view.setUint16(at + 8, Math.floor(block / 2 ** 32), true);
  view.setUint16(at + 10, 0, true);
}

/** Write the extents of a file that has at most {@link IN_INODE} of them into its i_block, which is zeroed. */
export function putInlineExtents(view: DataView, at: number, extents: Extents): void {
  const count = extents.length / 3;
  header(view, at, count, IN_INODE, 0);
  for (let i = 0; i < count; i++) leaf(view, at + HEADER + i * ENTRY, extents, i);
}

/**
 * Write an extent tree.
 * @param root the 60 bytes of i_block, filled here
 * @param seed checksum seed of the inode
 * @param emit takes a finished extent block and says at which block it will lie
 * @returns blocks emitted
 */
export function encodeExtents(
  root: Uint8Array,
  extents: Extents,
  seed: number,
  emit: (block: Uint8Array) => number,
): number {
  const rootView = new DataView(root.buffer, root.byteOffset, root.byteLength);
  const count = extents.length / 3;
  if (count <= IN_INODE) {
    putInlineExtents(rootView, 0, extents);
    return 0;
  }
  let emitted = 0;
  let depth = 0;
  // One level at a time, from the leaves up, until what is left fits the inode.
  let level: { logical: number; block: number }[] = [];
  for (let from = 0; from < count; from += PER_BLOCK) {
    const here = Math.min(PER_BLOCK, count - from);
    const bytes = new Uint8Array(BLOCK_SIZE);
    const view = new DataView(bytes.buffer);
    header(view, 0, here, PER_BLOCK, 0);
    for (let i = 0; i < here; i++) leaf(view, HEADER + i * ENTRY, extents, from + i);
    view.setUint32(BLOCK_SIZE - 4, crc32c(seed, bytes, 0, BLOCK_SIZE - 4), true);
    level.push({ logical: extents[3 * from] ?? 0, block: emit(bytes) });
    emitted++;
  }
  for (depth = 1; level.length > IN_INODE; depth++) {
    const above: typeof level = [];
    for (let from = 0; from < level.length; from += PER_BLOCK) {
      const children = level.slice(from, from + PER_BLOCK);
      const bytes = new Uint8Array(BLOCK_SIZE);
      const view = new DataView(bytes.buffer);
      header(view, 0, children.length, PER_BLOCK, depth);
      children.forEach((child, i) => index(view, HEADER + i * ENTRY, child.logical, child.block));
      view.setUint32(BLOCK_SIZE - 4, crc32c(seed, bytes, 0, BLOCK_SIZE - 4), true);
      above.push({ logical: children[0]?.logical ?? 0, block: emit(bytes) });
      emitted++;
    }
    level = above;
  }
  header(rootView, 0, level.length, IN_INODE, depth);
  level.forEach((child, i) => index(rootView, HEADER + i * ENTRY, child.logical, child.block));
  return emitted;
}

/** Longest extent of blocks that have been written; what is counted beyond has room alone. */
const MAX_WRITTEN = 32_768;
/** Nodes of a tree that are read, and extents that are taken: more only a hostile disk has. */
const MAX_NODES = 1 << 16;
const MAX_EXTENTS = 1 << 22;

/**
 * Read an extent tree. Blocks that have been given to the file but never written are holes.
 * @param root the 60 bytes of i_block
 * @param read gives a block of the image
 */
export function decodeExtents(root: Uint8Array, read: (block: number) => Uint8Array): number[] {
  const extents: number[] = [];
  let nodes = 0;
  const visit = (node: Uint8Array, budget: number): void => {
    const view = new DataView(node.buffer, node.byteOffset, node.byteLength);
    if (view.getUint16(0, true) !== MAGIC || budget < 0) throw new RangeError("bad extent node");
    nodes += 1;
    if (nodes > MAX_NODES || extents.length > 3 * MAX_EXTENTS) {
      throw new RangeError("an extent tree without end");
    }
    const entries = view.getUint16(2, true);
    const depth = view.getUint16(6, true);
    for (let i = 0; i < entries; i++) {
      const at = HEADER + i * ENTRY;
      if (depth === 0) {
        const physical = view.getUint32(at + 8, true) + view.getUint16(at + 6, true) * 2 ** 32;
        const count = view.getUint16(at + 4, true);
        if (count <= MAX_WRITTEN) extents.push(view.getUint32(at, true), physical, count);
      } else {
        visit(
          read(view.getUint32(at + 4, true) + view.getUint16(at + 8, true) * 2 ** 32),
          budget - 1,
        );
      }
    }
  };
  visit(root, 5);
  return extents;
}
