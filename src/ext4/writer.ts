/**
 * ext4/: a tree becomes an ext4 file system in an image file.
 *
 * Takes file contents as they stream by (DataWriter) and, at the end, a tree of inodes (FileTree) that says
 * where each file's content went; gives an image that the Linux kernel and e2fsprogs take as their
 * own. Layout, so that contents can be written before their total is known:
 *
 *   superblock | descriptors | (room for more) | (journal) | file contents | long symlinks, attribute, directory and
 *   extent blocks | all block bitmaps | all inode bitmaps | all inode tables | free
 *
 * flex_bg lets the tables lie anywhere; layout.ts says what else must lie where. The superblock is written last: an unfinished image is no file system.
 * The format follows the kernel's Documentation/filesystems/ext4/.
 */
import { VmsanError } from "../model/errors.ts";
import {
  BLOCK_SIZE,
  BLOCKS_PER_GROUP,
  COMPAT,
  FIRST_INODE,
  INCOMPAT,
  INODE_SIZE,
  MAX_INODES_PER_GROUP,
  RO_COMPAT,
  SUPERBLOCK_OFFSET,
} from "./constants.ts";
import { crc32c } from "./crc32c.ts";
import { DataWriter } from "./contents/data.ts";
import { BlockAppender, diskFull, type ImageFile } from "./image-file.ts";
import { encodeGroups } from "./groups.ts";
import { encodeJournalSuperblock } from "./journal.ts";
import { InodeWriter, writeTables } from "./inodes/inodes.ts";
import { planLayout, type Layout } from "./layout.ts";
import { resizeInode } from "./resize-inode.ts";
import { backupSuperblock, encodeSuperblock } from "./superblock.ts";
import type { FileTree } from "../util/file-tree/file-tree.ts";
import { numberTree } from "./tree.ts";

/** Size and identity of a file system. */
export interface Ext4Options {
  /** Bytes, a multiple of 4096. */
  sizeBytes: number;
  journal: boolean;
  /** At most 16 bytes. */
  label?: string;
  /** 16 bytes. */
  uuid: Uint8Array;
  /** 16 bytes; seed of the directory hash. */
  hashSeed: Uint8Array;
}

/** What {@link Ext4Writer.finish} did. */
export interface Ext4Result {
  /** Entries of the tree (names, not inodes), the root and our lost+found not counted. */
  entries: number;
  inodes: number;
  warnings: string[];
}

/** One inode per so many bytes of disk, as mkfs.ext4 does, unless the tree needs more. */
const BYTES_PER_INODE = 16_384;
const SMALLEST = 64 * 1024;
/** The kernel's largest file system with 32-bit inode numbers and one inode per 16 KiB. */
const LARGEST = 64 * 2 ** 40;

/** Refuse impossible options. */
function checkOptions(options: Ext4Options): void {
  const { sizeBytes } = options;
  if (
    !Number.isSafeInteger(sizeBytes) ||
    sizeBytes % BLOCK_SIZE !== 0 ||
    sizeBytes < SMALLEST ||
    sizeBytes > LARGEST
  ) {
    throw new VmsanError({
      code: "ERR_DISK_SIZE",
      message: `Cannot make a disk of ${sizeBytes} bytes`,
      why: `The size must be a multiple of ${BLOCK_SIZE} between 64 KiB and 64 TiB.`,
      fix: "Choose another size.",
    });
  }
  if (Buffer.byteLength(options.label ?? "") > 16) {
    throw new VmsanError({
      code: "ERR_DISK_LABEL",
      message: `Cannot label a disk ${JSON.stringify(options.label)}`,
      why: "An ext4 label has at most 16 bytes.",
      fix: "Choose a shorter label.",
    });
  }
}

/** Writes one file system: contents through {@link data}, then {@link finish}. */
export class Ext4Writer {
  /** Takes file contents, one file after the other. */
  readonly data: DataWriter;
  private readonly file: ImageFile;
  private readonly options: Ext4Options;
  private readonly appender: BlockAppender;
  private readonly layout: Layout;

  /** @param file empty image of `options.sizeBytes` bytes */
  constructor(file: ImageFile, options: Ext4Options) {
    checkOptions(options);
    this.file = file;
    this.options = options;
    this.layout = planLayout(options.sizeBytes, options.journal);
    const { first, blocks, backups, copyBlocks } = this.layout;
    const avoid = backups.flatMap((group) => [group * BLOCKS_PER_GROUP, copyBlocks]);
    this.appender = new BlockAppender(file, first, blocks, avoid);
    this.data = new DataWriter(this.appender);
  }

  /** Inodes per group: room for the tree, and for more where the disk has it. */
  private inodesPerGroup(needed: number): number {
    const { groups, blocks, backups, copyBlocks } = this.layout;
    const fit = (wanted: number): number => Math.ceil(Math.ceil(wanted / groups) / 16) * 16;
    const usual = fit(Math.max(needed + 16, (blocks * BLOCK_SIZE) / BYTES_PER_INODE));
    const end = this.appender.next;
    for (const perGroup of [usual, fit(needed)]) {
      const table = (perGroup * INODE_SIZE) / BLOCK_SIZE;
      // In front of each copy there may be a gap that is too small for a table.
      const gaps = backups.length * (copyBlocks + table);
      if (perGroup <= MAX_INODES_PER_GROUP && end + groups * (2 + table) + gaps <= blocks) {
        return perGroup;
      }
    }
    if (fit(needed) <= MAX_INODES_PER_GROUP) throw diskFull(blocks);
    throw new VmsanError({
      code: "ERR_DISK_INODES",
      message: `The image's ${needed} files do not fit on a disk of ${this.options.sizeBytes} bytes`,
      why: `ext4 has at most ${MAX_INODES_PER_GROUP} inodes per 128 MiB.`,
      fix: "Ask for a larger disk (--disk, --size).",
    });
  }

  /**
   * Write everything but the contents: inodes, directories, tables, superblock.
   * @param tree its contents are numbers of {@link data}'s; `lost+found` is added to it
   */
  finish(tree: FileTree): Ext4Result {
    const { file, appender, options, layout } = this;
    const { blocks, groups, journal, backups, copyBlocks } = layout;
    const seed = crc32c(0xffffffff, options.uuid);
    const numbered = numberTree(tree);
    const resize = resizeInode(layout);
    const inodes = new InodeWriter(numbered, {
      seed,
      hashSeed: options.hashSeed,
      appender,
      extentsOf: (content) => this.data.extentsOf(content),
      journal,
      resize,
    });
    appender.flush();
    const perGroup = this.inodesPerGroup(inodes.lastInode);
    const tableBlocks = (perGroup * INODE_SIZE) / BLOCK_SIZE;
    const placed = (count: number): Float64Array =>
      new Float64Array(groups).map(() => appender.place(count));
    const blockBitmaps = placed(1);
    const inodeBitmaps = placed(1);
    const inodeTables = placed(tableBlocks);

    const tables = encodeGroups({
      seed,
      blocks,
      groups,
      perGroup,
      usedBlocks: appender.next,
      freed: [...this.data.freed, ...appender.skipped],
      lastInode: inodes.lastInode,
      directories: inodes.directories,
      backups,
      copyBlocks,
      blockBitmaps,
      inodeBitmaps,
      inodeTables,
    });
    for (const { block, bytes } of [...tables.bitmaps, ...(resize?.content ?? [])]) {
      file.write(block * BLOCK_SIZE, bytes);
    }
    writeTables(inodes, perGroup, inodeTables, file);
    if (journal !== undefined) {
      file.write(journal.first * BLOCK_SIZE, encodeJournalSuperblock(journal.blocks));
    }
    const superblock = this.superblock(tables.freeBlocks, perGroup, inodes, numbered.lostAndFound);
    for (const group of backups) {
      const at = group * BLOCKS_PER_GROUP * BLOCK_SIZE;
      file.write(at + BLOCK_SIZE, tables.descriptors);
      file.write(at, backupSuperblock(superblock, group));
    }
    file.write(BLOCK_SIZE, tables.descriptors);
    file.write(SUPERBLOCK_OFFSET, superblock);
    return {
      entries: numbered.names,
      inodes: inodes.lastInode - FIRST_INODE + 1,
      warnings: inodes.toWarnings(),
    };
  }
  /** The primary superblock. */
  private superblock(
    freeBlocks: number,
    perGroup: number,
    { lastInode, journalBlock }: InodeWriter,
    lostAndFound: number,
  ): Uint8Array {
    const { options, layout } = this;
    const { journal, groups, reservedDescBlocks } = layout;
    return encodeSuperblock({
      blocks: layout.blocks,
      freeBlocks,
      inodes: perGroup * groups,
      freeInodes: perGroup * groups - lastInode,
      inodesPerGroup: perGroup,
      compat:
        COMPAT.extAttr |
        COMPAT.dirIndex |
        (journal === undefined ? COMPAT.sparseSuper2 : COMPAT.hasJournal) |
        (reservedDescBlocks === 0 ? 0 : COMPAT.resizeInode),
      incompat: INCOMPAT.filetype | INCOMPAT.extents | INCOMPAT.bit64 | INCOMPAT.flexBg,
      roCompat:
        RO_COMPAT.largeFile |
        RO_COMPAT.hugeFile |
        RO_COMPAT.dirNlink |
        RO_COMPAT.extraIsize |
        RO_COMPAT.metadataCsum |
        (journal === undefined ? 0 : RO_COMPAT.sparseSuper),
      uuid: options.uuid,
      hashSeed: options.hashSeed,
      label: options.label ?? "",
      lostAndFound,
      reservedGdtBlocks: reservedDescBlocks,
      journal:
        journal === undefined || journalBlock === undefined
          ? undefined
          : { block: journalBlock, size: journal.blocks * BLOCK_SIZE },
    });
  }
}
