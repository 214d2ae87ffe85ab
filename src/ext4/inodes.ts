/** Writing inodes and the blocks that belong to them: directories, symlinks, attributes, extents. */
import { VmsanError } from "../model/errors.ts";
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
} from "./constants.ts";
import { encodeDirectory, type DirectoryNames } from "./directory.ts";
import { appendExtent, countBlocks, encodeExtents, type Extents } from "./extent.ts";
import { DirectoryHash } from "./hash.ts";
import type { BlockAppender } from "./image-file.ts";
import {
  clampTime,
  deviceBlock,
  inodeSeed,
  inodeTable,
  putInode,
  putReservedInode,
  sealInode,
  type InodeTable,
} from "./inode.ts";
import type { ResizeInode } from "./resize-inode.ts";
import { ROOT, type FileTree, type NodeFields } from "../util/file-tree/file-tree.ts";
import type { NumberedTree } from "./tree.ts";
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

/** All inodes, ready for the tables. */
export interface WrittenInodes {
  /** The inode tables' content from inode 1 to the last one in use. */
  table: Buffer;
  lastInode: number;
  /** Numbers of the inodes that are directories. */
  directories: number[];
  /** i_block of the journal's inode. */
  journalBlock: Uint8Array | undefined;
  warnings: string[];
}

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

/** Writes the inodes of one tree. */
class InodeWriter {
  readonly losses = new Losses();
  readonly directories: number[] = [];
  private readonly numbered: NumberedTree;
  private readonly tree: FileTree;
  private readonly context: InodeContext;
  private readonly table: InodeTable;
  private readonly hash: DirectoryHash;
  /** i_block of the inode that is written. */
  private readonly block = new Uint8Array(60);
  private readonly append = (block: Uint8Array): number => this.context.appender.append(block);

  constructor(numbered: NumberedTree, context: InodeContext, table: InodeTable) {
    this.numbered = numbered;
    this.tree = numbered.tree;
    this.context = context;
    this.table = table;
    this.hash = new DirectoryHash(context.hashSeed);
  }

  /** Write one inode and everything that hangs on it. */
  write(node: number, number: number): void {
    const inode = this.tree.fields(node);
    const at = (number - 1) * INODE_SIZE;
    const seed = inodeSeed(this.context.seed, number);
    const xattrs = this.xattrs(inode);
    let size = 0;
    let flags = 0;
    let blocks = 0;
    let block: Uint8Array = this.block.fill(0);
    let extents: Extents | undefined;
    switch (inode.kind) {
      case "file":
        size = inode.size;
        extents = this.context.extentsOf(this.tree.contents[node] ?? 0);
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
        block = deviceBlock(inode.major, inode.minor);
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
      const { appender } = this.context;
      xattrBlock = appender.next;
      appender.append(encodeXattrBlock(xattrs, this.context.seed, xattrBlock));
      blocks++;
    }
    const links = this.numbered.links[node] ?? 1;
    const mtime = clampTime(inode.mtime);
    if (mtime !== inode.mtime)
      this.losses.add("times outside 1901…2446 moved", String(inode.mtime));
    putInode(this.table, at, {
      kind: inode.kind,
      mode: inode.mode,
      uid: inode.uid,
      gid: inode.gid,
      mtime,
      mtimeNsec: inode.mtimeNsec,
      // dir_nlink: a directory with more subdirectories than the count holds says 1.
      links: links > LINK_MAX ? 1 : links,
      size,
      blocks,
      flags,
      block,
      xattrBlock,
    });
    if (xattrs !== undefined) {
      putInodeXattrs(this.table.bytes.subarray(at, at + INODE_SIZE), xattrs);
    }
    sealInode(this.table, at, this.context.seed, number);
  }

  /** Write a file of the file system's own: root's, mode 0600, of the year 1970. */
  own(
    number: number,
    fields: { size: number; blocks: number; flags: number; block: Uint8Array },
  ): void {
    const at = (number - 1) * INODE_SIZE;
    const file = { kind: "file", mode: 0o600, uid: 0, gid: 0, mtime: 0, mtimeNsec: 0 } as const;
    putInode(this.table, at, { ...file, links: 1, xattrBlock: 0, ...fields });
    sealInode(this.table, at, this.context.seed, number);
  }

  /** Write the journal's inode. @returns its i_block */
  journal(first: number, blocks: number): Uint8Array {
    const block = new Uint8Array(60);
    encodeExtents(block, [0, first, blocks], 0, () => {
      throw new RangeError("the journal is one extent");
    });
    this.own(JOURNAL_INODE, {
      size: blocks * BLOCK_SIZE,
      blocks,
      flags: INODE_FLAG.extents,
      block,
    });
    return block;
  }

  private xattrs(inode: NodeFields): XattrPlan | undefined {
    if (inode.xattrs === undefined || inode.xattrs.size === 0) return undefined;
    // The kernel allows user.* on files and directories only.
    const user = inode.kind === "file" || inode.kind === "directory";
    const kept = user
      ? inode.xattrs
      : new Map([...inode.xattrs].filter(([name]) => !name.startsWith("user.")));
    if (kept.size < inode.xattrs.size) {
      this.losses.add("user attributes of links and devices dropped", inode.kind);
    }
    const plan = planXattrs(kept, (name) =>
      this.losses.add("attributes that ext4 cannot hold dropped", name),
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

/** Write all inodes' blocks through the appender, and give the content of the inode tables. */
export function writeInodes(numbered: NumberedTree, context: InodeContext): WrittenInodes {
  const lastInode = FIRST_INODE - 1 + numbered.nodes.length;
  const table = inodeTable(
    Buffer.alloc(Math.ceil((lastInode * INODE_SIZE) / BLOCK_SIZE) * BLOCK_SIZE),
  );
  const writer = new InodeWriter(numbered, context, table);
  let journalBlock: Uint8Array | undefined;
  for (let number = 1; number < FIRST_INODE; number++) {
    if (number === ROOT_INODE) continue;
    if (number === JOURNAL_INODE && context.journal !== undefined) {
      journalBlock = writer.journal(context.journal.first, context.journal.blocks);
      continue;
    }
    if (number === RESIZE_INODE && context.resize !== undefined) {
      const { size, blocks, block } = context.resize;
      writer.own(number, { size, blocks, flags: 0, block });
      continue;
    }
    const at = (number - 1) * INODE_SIZE;
    putReservedInode(table, at);
    sealInode(table, at, context.seed, number);
  }
  writer.write(ROOT, ROOT_INODE);
  numbered.nodes.forEach((node, i) => writer.write(node, FIRST_INODE + i));
  return {
    table: table.bytes,
    lastInode,
    directories: writer.directories,
    journalBlock,
    warnings: writer.losses.toWarnings(),
  };
}
