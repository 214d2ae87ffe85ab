/**
 * ext4/: a tree becomes an ext4 file system in an image file.
 *
 * Takes file contents as they stream by (DataWriter) and, at the end, a tree of inodes that says
 * where each file's content went; gives an image that the Linux kernel and e2fsprogs take as their
 * own. Layout, so that contents can be written before their total is known:
 *
 *   superblock | descriptors | journal | file contents | long symlinks, attribute, directory and
 *   extent blocks | all block bitmaps | all inode bitmaps | all inode tables | free
 *
 * flex_bg lets the tables lie anywhere; sparse_super2 without backups keeps copies out of the
 * contents' way. The superblock is written last: an unfinished image is no file system.
 * The format follows the kernel's Documentation/filesystems/ext4/.
 */
import { VmsanError } from "../model/errors.ts";
import {
  BLOCK_SIZE,
  BLOCKS_PER_GROUP,
  COMPAT,
  DESCS_PER_BLOCK,
  FIRST_INODE,
  INCOMPAT,
  INODE_SIZE,
  MAX_INODES_PER_GROUP,
  RO_COMPAT,
  SUPERBLOCK_OFFSET,
} from "./constants.ts";
import { crc32c } from "./crc32c.ts";
import { DataWriter } from "./data.ts";
import { BlockAppender, diskFull, type ImageFile } from "./image-file.ts";
import { encodeGroups } from "./groups.ts";
import { encodeJournalSuperblock, journalBlocks } from "./journal.ts";
import { writeInodes } from "./inodes.ts";
import { encodeSuperblock } from "./superblock.ts";
import { numberTree, type TreeInode } from "./tree.ts";

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
  private readonly blocks: number;
  private readonly groups: number;
  private readonly descBlocks: number;
  private readonly journal: { first: number; blocks: number } | undefined;

  /** @param file empty image of `options.sizeBytes` bytes */
  constructor(file: ImageFile, options: Ext4Options) {
    checkOptions(options);
    this.file = file;
    this.options = options;
    this.blocks = options.sizeBytes / BLOCK_SIZE;
    this.groups = Math.ceil(this.blocks / BLOCKS_PER_GROUP);
    this.descBlocks = Math.ceil(this.groups / DESCS_PER_BLOCK);
    let next = 1 + this.descBlocks;
    const journal = options.journal ? journalBlocks(this.blocks) : 0;
    this.journal = journal === 0 ? undefined : { first: next, blocks: journal };
    next += journal;
    this.appender = new BlockAppender(file, next, this.blocks);
    this.data = new DataWriter(file, this.appender);
  }

  /** Inodes per group: room for the tree, and for more where the disk has it. */
  private inodesPerGroup(needed: number, end: number): number {
    const fit = (wanted: number): number => Math.ceil(Math.ceil(wanted / this.groups) / 16) * 16;
    const usual = fit(Math.max(needed + 16, (this.blocks * BLOCK_SIZE) / BYTES_PER_INODE));
    for (const perGroup of [usual, fit(needed)]) {
      const tables = this.groups * (2 + (perGroup * INODE_SIZE) / BLOCK_SIZE);
      if (perGroup <= MAX_INODES_PER_GROUP && end + tables <= this.blocks) return perGroup;
    }
    if (fit(needed) <= MAX_INODES_PER_GROUP) throw diskFull(this.blocks);
    throw new VmsanError({
      code: "ERR_DISK_INODES",
      message: `The image's ${needed} files do not fit on a disk of ${this.options.sizeBytes} bytes`,
      why: `ext4 has at most ${MAX_INODES_PER_GROUP} inodes per 128 MiB.`,
      fix: "Ask for a larger disk (--disk, --size).",
    });
  }

  /** Write everything but the contents: inodes, directories, tables, superblock. */
  finish(root: TreeInode): Ext4Result {
    const { file, appender, options, blocks, groups, journal } = this;
    const seed = crc32c(0xffffffff, options.uuid);
    const numbered = numberTree(root);
    const written = writeInodes(numbered, {
      seed,
      hashSeed: options.hashSeed,
      appender,
      journal,
    });
    appender.flush();
    const tablesAt = appender.next;
    const perGroup = this.inodesPerGroup(written.lastInode, tablesAt);
    const inodeBitmaps = tablesAt + groups;
    const inodeTables = inodeBitmaps + groups;
    const end = inodeTables + groups * ((perGroup * INODE_SIZE) / BLOCK_SIZE);

    const tables = encodeGroups({
      seed,
      blocks,
      groups,
      perGroup,
      usedBlocks: end,
      freed: this.data.freed,
      lastInode: written.lastInode,
      directories: written.directories,
      blockBitmaps: tablesAt,
      inodeBitmaps,
      inodeTables,
    });
    for (const { block, bytes } of tables.bitmaps) file.write(block * BLOCK_SIZE, bytes);
    file.write(inodeTables * BLOCK_SIZE, written.table);
    if (journal !== undefined) {
      file.write(journal.first * BLOCK_SIZE, encodeJournalSuperblock(journal.blocks));
    }
    file.write(BLOCK_SIZE, tables.descriptors);
    file.write(
      SUPERBLOCK_OFFSET,
      encodeSuperblock({
        blocks,
        freeBlocks: tables.freeBlocks,
        inodes: perGroup * groups,
        freeInodes: perGroup * groups - written.lastInode,
        inodesPerGroup: perGroup,
        compat:
          COMPAT.extAttr |
          COMPAT.dirIndex |
          COMPAT.sparseSuper2 |
          (journal === undefined ? 0 : COMPAT.hasJournal),
        incompat: INCOMPAT.filetype | INCOMPAT.extents | INCOMPAT.bit64 | INCOMPAT.flexBg,
        roCompat:
          RO_COMPAT.largeFile |
          RO_COMPAT.hugeFile |
          RO_COMPAT.dirNlink |
          RO_COMPAT.extraIsize |
          RO_COMPAT.metadataCsum,
        uuid: options.uuid,
        hashSeed: options.hashSeed,
        label: options.label ?? "",
        lostAndFound: numbered.lostAndFound,
        firstMetaBg: 0,
        journal:
          journal === undefined || written.journalBlock === undefined
            ? undefined
            : { block: written.journalBlock, size: journal.blocks * BLOCK_SIZE },
      }),
    );
    return {
      entries: numbered.names,
      inodes: written.lastInode - FIRST_INODE + 1,
      warnings: written.warnings,
    };
  }
}
