/**
 * ext4/inodes/: inodes and what hangs on them.
 *
 * inodes.ts: writes all inodes of a tree, and before them the blocks that belong to them: directories,
 * symlinks, attributes, extents.
 */
import { VmsanError } from "../../model/errors.ts";
import {
  BLOCK_SIZE,
  DIRENT_TYPE,
  FIRST_INODE,
  INODE_FLAG,
  INODE_SIZE,
  JOURNAL_INODE,
  LINK_MAX,
  MAX_EXTENT_BLOCKS,
  RESIZE_INODE,
  ROOT_INODE,
} from "../constants.ts";
import { encodeDirectory, type DirectoryNames } from "../directory.ts";
import {
  appendExtent,
  countBlocks,
  encodeExtents,
  IN_INODE,
  putInlineExtents,
  type Extents,
} from "../contents/extent.ts";
import { DirectoryHash } from "../hash.ts";
import type { BlockAppender, ImageFile } from "../image-file.ts";
import {
  clampTime,
  deviceBlock,
  I_BLOCK,
  inodeSeed,
  inodeTable,
  putInode,
  putReservedInode,
  sealInode,
} from "./inode.ts";
import { I_BLOCK_SIZE, PlacedTable, type PlacedBlocks } from "./placed.ts";
import type { ResizeInode } from "../resize-inode.ts";
import {
  PLAIN_DIRECTORY,
  ROOT,
  type FileTree,
  type NodeFields,
} from "../../util/file-tree/file-tree.ts";
import type { NumberedTree } from "../tree.ts";
import { encodeXattrBlock, planXattrs, putInodeXattrs, type XattrPlan } from "./xattr.ts";

/** Symlink targets shorter than this live in the inode. */
const FAST_SYMLINK = 60;

/** What inodes are written with. */
export interface InodeContext {
  seed: number;
  hashSeed: Uint8Array;
  appender: BlockAppender;
  /** Where a content lies. */
  extentsOf: (content: number) => Extents;
  journal: { first: number; blocks: number } | undefined;
  resize: ResizeInode | undefined;
}

/** Inodes encoded at once: what fits the processor's second-level cache. */
const PER_PIECE = 1024;

/** Count of things that could not be kept, by what they are. */
class Losses {
  private readonly counts = new Map<string, { count: number; example: string }>();
  add(what: string, example: string): void {
    const known = this.counts.get(what);
    if (known === undefined) this.counts.set(what, { count: 1, example });
    else known.count++;
  }
  toWarnings(): string[] {
    return [...this.counts].map(([what, { count, example }]) => `${what}: ${count} (${example})`);
  }
}

/**
 * Writes the inodes of one tree: first their blocks, when it is made; then, once it is known where the
 * tables lie, the inodes themselves, piece by piece.
 */
export class InodeWriter {
  /** The highest inode in use. */
  readonly lastInode: number;
  /** Numbers of the inodes that are directories. */
  readonly directories: number[] = [];
  /** i_block of the journal's inode. */
  readonly journalBlock: Uint8Array | undefined;
  private readonly losses = new Losses();
  private readonly numbered: NumberedTree;
  private readonly tree: FileTree;
  private readonly context: InodeContext;
  private readonly placed: PlacedTable;
  private readonly table = inodeTable(Buffer.alloc(PER_PIECE * INODE_SIZE));
  private readonly hash: DirectoryHash;
  /** i_block of the inode that is written. */
  private readonly block = new Uint8Array(I_BLOCK_SIZE);
  private readonly append = (block: Uint8Array): number => this.context.appender.append(block);

  /** Write all inodes' blocks through the appender. */
  constructor(numbered: NumberedTree, context: InodeContext) {
    this.numbered = numbered;
    this.tree = numbered.tree;
    this.context = context;
    this.placed = new PlacedTable(numbered.tree.count);
    this.hash = new DirectoryHash(context.hashSeed);
    this.lastInode = FIRST_INODE - 1 + numbered.nodes.length;
    const { journal } = context;
    if (journal !== undefined) this.journalBlock = oneExtent(journal.first, journal.blocks);
    this.place(ROOT, ROOT_INODE);
    numbered.nodes.forEach((node, i) => this.place(node, FIRST_INODE + i));
  }

  /** What could not be kept, in words. */
  toWarnings(): string[] {
    return this.losses.toWarnings();
  }

  /**
   * Encode inodes, at most {@link PER_PIECE} of them.
   * @returns whole blocks of an inode table, valid until the next call
   */
  encode(first: number, last: number): Uint8Array {
    const { table, numbered } = this;
    const end = Math.ceil(((last - first + 1) * INODE_SIZE) / BLOCK_SIZE) * BLOCK_SIZE;
    table.bytes.fill(0, 0, end);
    for (let number = first; number <= last; number++) {
      const at = (number - first) * INODE_SIZE;
      if (number === ROOT_INODE) this.put(ROOT, number, at);
      else if (number < FIRST_INODE) this.putReserved(number, at);
      else this.put(numbered.nodes[number - FIRST_INODE] ?? 0, number, at);
    }
    return table.bytes.subarray(0, end);
  }

  /** Write what belongs to an inode and lies outside of it, and remember where. */
  private place(node: number, number: number): void {
    const { tree, context, block } = this;
    const kind = tree.kind(node);
    const hasXattrs = tree.xattrs.has(node);
    if (kind === "file") {
      const { length } = context.extentsOf(tree.contents[node] ?? 0);
      if (!hasXattrs && length <= 3 * IN_INODE) return;
    }
    if (kind === "fifo" && !hasXattrs) return;
    const inode = tree.fields(node);
    const seed = inodeSeed(context.seed, number);
    const xattrs = hasXattrs ? this.xattrs(inode, this.losses) : undefined;
    let size = 0;
    let flags = 0;
    let blocks = 0;
    let extents: Extents | undefined;
    block.fill(0);
    switch (kind) {
      case "file":
        size = inode.size;
        extents = context.extentsOf(tree.contents[node] ?? 0);
        break;
      case "directory": {
        extents = this.directory(node, number, seed);
        // From two blocks up it has an index.
        if (countBlocks(extents) > 1) flags |= INODE_FLAG.index;
        size = countBlocks(extents) * BLOCK_SIZE;
        this.directories.push(number);
        break;
      }
      case "symlink":
        size = inode.target.length;
        if (size < FAST_SYMLINK) block.set(Buffer.from(inode.target, "latin1"));
        else extents = [0, this.longSymlink(inode.target), 1];
        break;
      case "char":
      case "block":
        block.set(deviceBlock(inode.major, inode.minor));
        break;
      case "fifo":
        break;
    }
    if (extents !== undefined) {
      flags |= INODE_FLAG.extents;
      blocks = countBlocks(extents) + encodeExtents(block, extents, seed, this.append);
    }
    let xattrBlock = 0;
    if (xattrs !== undefined && xattrs.inBlock.length > 0) {
      xattrBlock = context.appender.next;
      this.append(encodeXattrBlock(xattrs, context.seed, xattrBlock));
      blocks++;
    }
    this.placed.set(node, { block, size, blocks, flags, xattrBlock });
  }

  /** What {@link place} remembered of a node, or what a file (or a pipe) without any of that has. */
  private placedOf(node: number, kind: NodeFields["kind"], at: number): PlacedBlocks {
    const placed = this.placed.get(node);
    if (placed !== undefined) return placed;
    if (kind !== "file") return { block: undefined, size: 0, blocks: 0, flags: 0, xattrBlock: 0 };
    const extents = this.context.extentsOf(this.tree.contents[node] ?? 0);
    putInlineExtents(this.table.view, at + I_BLOCK, extents);
    return {
      block: undefined,
      size: this.tree.sizes[node] ?? 0,
      blocks: countBlocks(extents),
      flags: INODE_FLAG.extents,
      xattrBlock: 0,
    };
  }

  /** Encode an inode of the tree at a byte of the table. */
  private put(node: number, number: number, at: number): void {
    const { table, tree } = this;
    const kind = tree.kind(node);
    const time = tree.mtimes[node] ?? 0;
    const mtime = clampTime(time);
    if (mtime !== time) this.losses.add("times outside 1901…2446 moved", String(time));
    const fields = {
      kind,
      mode: tree.modes[node] ?? 0,
      uid: tree.uids[node] ?? 0,
      gid: tree.gids[node] ?? 0,
      mtime,
      mtimeNsec: tree.nsecs[node] ?? 0,
    };
    const links = this.numbered.links[node] ?? 1;
    // dir_nlink: a directory with more subdirectories than the count holds says 1.
    putInode(table, at, fields, links > LINK_MAX ? 1 : links, this.placedOf(node, kind, at));
    const hasXattrs = tree.xattrs.has(node);
    if (hasXattrs) {
      // What was lost of them has been counted.
      const xattrs = this.xattrs(tree.fields(node), undefined);
      if (xattrs !== undefined) putInodeXattrs(table.bytes.subarray(at, at + INODE_SIZE), xattrs);
    }
    sealInode(table, at, inodeSeed(this.context.seed, number), hasXattrs);
  }

  /** Encode one of the first ten inodes. */
  private putReserved(number: number, at: number): void {
    const { table, journalBlock } = this;
    const { seed, journal, resize } = this.context;
    const own = { ...PLAIN_DIRECTORY, kind: "file", mode: 0o600 } as const;
    if (number === JOURNAL_INODE && journal !== undefined && journalBlock !== undefined) {
      const { blocks } = journal;
      const size = blocks * BLOCK_SIZE;
      const flags = INODE_FLAG.extents;
      putInode(table, at, own, 1, { block: journalBlock, size, blocks, flags, xattrBlock: 0 });
    } else if (number === RESIZE_INODE && resize !== undefined) {
      const { size, blocks, block } = resize;
      putInode(table, at, own, 1, { block, size, blocks, flags: 0, xattrBlock: 0 });
    } else putReservedInode(table, at);
    sealInode(table, at, inodeSeed(seed, number), false);
  }

  /** @param losses takes what cannot be kept */
  private xattrs(inode: NodeFields, losses: Losses | undefined): XattrPlan | undefined {
    if (inode.xattrs === undefined || inode.xattrs.size === 0) return undefined;
    // The kernel allows user.* on files and directories only.
    const user = inode.kind === "file" || inode.kind === "directory";
    const kept = user
      ? inode.xattrs
      : new Map([...inode.xattrs].filter(([name]) => !name.startsWith("user.")));
    if (kept.size < inode.xattrs.size) {
      losses?.add("user attributes of links and devices dropped", inode.kind);
    }
    const plan = planXattrs(kept, (name) =>
      losses?.add("attributes that ext4 cannot hold dropped", name),
    );
    if (plan === undefined) {
      throw new VmsanError({
        code: "ERR_DISK_XATTR_SIZE",
        message: `Cannot store the extended attributes ${[...kept.keys()].join(", ")} of one file`,
        why: "An ext4 inode has room for about 4 KiB of attributes.",
        fix: "Remove the large attribute from the file in the image.",
      });
    }
    return plan;
  }

  private longSymlink(target: string): number {
    const bytes = Buffer.alloc(BLOCK_SIZE);
    bytes.write(target, "latin1");
    return this.context.appender.append(bytes);
  }

  /** What a directory names. */
  private namesOf(node: number): DirectoryNames {
    const { tree, numbered } = this;
    const { text } = tree;
    let count = 0;
    for (let name = tree.first(node); name !== 0; name = tree.next(name)) count++;
    const starts = new Uint32Array(count);
    const lengths = new Uint8Array(count);
    const inodes = new Uint32Array(count);
    const types = new Uint8Array(count);
    let i = 0;
    for (let name = tree.first(node); name !== 0; name = tree.next(name), i++) {
      const child = tree.child(name);
      starts[i] = text.start(tree.nameAt(name));
      lengths[i] = text.length(tree.nameAt(name));
      inodes[i] = numbered.numbers[child] ?? 0;
      types[i] = DIRENT_TYPE[tree.kind(child)];
    }
    return { bytes: text.bytes, starts, lengths, inodes, types };
  }

  private directory(node: number, number: number, seed: number): number[] {
    const parent = this.numbered.parents[node] ?? ROOT_INODE;
    const directory = { self: number, parent, names: this.namesOf(node), seed, hash: this.hash };
    const extents: number[] = [];
    let logical = 0;
    encodeDirectory(directory, (block) => {
      const physical = this.context.appender.append(block);
      appendExtent(extents, logical++, physical, 1, MAX_EXTENT_BLOCKS);
    });
    return extents;
  }
}

/** Blocks of an inode that has none outside. */
function notInInode(): never {
  throw new RangeError("extents that do not fit the inode");
}

/** i_block of a file that is one extent. */
function oneExtent(first: number, blocks: number): Uint8Array {
  const block = new Uint8Array(I_BLOCK_SIZE);
  encodeExtents(block, [0, first, blocks], 0, notInInode);
  return block;
}

/**
 * Write the inode tables.
 * @param perGroup inodes of each group, a multiple of 16
 * @param tables first block of each group's table
 */
export function writeTables(
  inodes: InodeWriter,
  perGroup: number,
  tables: ArrayLike<number>,
  file: ImageFile,
): void {
  for (let group = 0; group * perGroup < inodes.lastInode; group++) {
    const from = (tables[group] ?? 0) * BLOCK_SIZE;
    const count = Math.min(perGroup, inodes.lastInode - group * perGroup);
    for (let done = 0; done < count; done += PER_PIECE) {
      const first = group * perGroup + done + 1;
      const last = first + Math.min(PER_PIECE, count - done) - 1;
      file.write(from + done * INODE_SIZE, inodes.encode(first, last));
    }
  }
}
