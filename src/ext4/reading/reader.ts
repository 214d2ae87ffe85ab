/**
 * Reads a file system back, for lookups, commits, tests and checks. What guests have written is hostile:
 * every walk has an end, and no checksum is trusted more than it must be.
 */
import { createHash } from "node:crypto";
import { closeSync, openSync, readSync } from "node:fs";
import {
  BLOCK_SIZE,
  BLOCKS_PER_GROUP,
  DESC_SIZE,
  INCOMPAT,
  INODE_FLAG,
  INODE_SIZE,
  MODE_TYPE,
  ROOT_INODE,
  SUPERBLOCK_OFFSET,
  SUPERBLOCK_SIZE,
  type InodeKind,
} from "../constants.ts";
import { crc32c } from "../crc32c.ts";
import { decodeDirectoryBlock } from "../directory.ts";
import { decodeExtents } from "../contents/extent.ts";
import { decodeGroup } from "../group.ts";
import { decodeDevice, decodeTime } from "../inodes/inode.ts";
import { decodeSuperblock, type DecodedSuperblock } from "../superblock.ts";
import { decodeXattrs } from "../inodes/xattr.ts";

/** One name of the tree as found on disk. */
export interface FoundEntry {
  inode: number;
  kind: FoundKind;
  mode: number;
  uid: number;
  gid: number;
  mtime: number;
  mtimeNsec: number;
  links: number;
  size: number;
  /** SHA-256 of a file's content, in hex; "" for others. */
  sha256: string;
  /** Bytes in blocks. */
  allocated: number;
  target: string;
  major: number;
  minor: number;
  /** Attribute names to values in hex. */
  xattrs: Record<string, string>;
  /** A directory with a hash tree. */
  indexed: boolean;
}

/** What an inode of a disk may be; the writer makes no sockets. */
export type FoundKind = InodeKind | "socket";

const KIND_OF = new Map<number, FoundKind>([
  ...Object.entries(MODE_TYPE).map(([kind, bits]) => [bits, kind as InodeKind] as const),
  [0xc000, "socket"],
]);

/** Blocks of a directory that are read: more only a hostile disk has. */
const MAX_DIRECTORY_BLOCKS = 1 << 20;

/** Where the bytes of a disk are. */
export interface DiskBytes {
  /** Bytes from an offset on; zeros where there are none. */
  read(offset: number, length: number): Buffer;
  close(): void;
}

/** The bytes of a raw image. */
export function rawDisk(path: string): DiskBytes {
  const fd = openSync(path, "r");
  return {
    read(offset, length) {
      const bytes = Buffer.alloc(length);
      readSync(fd, bytes, 0, length, offset);
      return bytes;
    },
    close: () => closeSync(fd),
  };
}

/** An inode without its content. */
export interface FoundInode extends Omit<FoundEntry, "sha256"> {
  /** Its bytes, for {@link Ext4Reader.content} and {@link Ext4Reader.list}. */
  raw: Buffer;
}

/** An image open for reading. Methods throw RangeError for what no file system has. */
export class Ext4Reader {
  readonly superblock: DecodedSuperblock;
  private readonly disk: DiskBytes;
  private readonly seed: number;

  /**
   * Open an image; throws RangeError when it is no ext4 file system.
   * @param from a raw image's path, or the bytes of another kind of disk, closed with the reader
   */
  constructor(from: string | DiskBytes) {
    this.disk = typeof from === "string" ? rawDisk(from) : from;
    const superblock = decodeSuperblock(this.read(SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE));
    if (superblock === undefined) {
      this.close();
      throw new RangeError(
        `${typeof from === "string" ? from : "the disk"} is no ext4 file system`,
      );
    }
    this.superblock = superblock;
    this.seed = crc32c(0xffffffff, superblock.uuid);
  }

  /** Whether the file system was not unmounted, so that its journal holds what is missing in it. */
  get needsRecovery(): boolean {
    return (this.superblock.incompat & INCOMPAT.recover) !== 0;
  }

  close(): void {
    this.disk.close();
  }

  private read(offset: number, length: number): Buffer {
    return this.disk.read(offset, length);
  }

  private block(number: number): Buffer {
    return this.read(number * BLOCK_SIZE, BLOCK_SIZE);
  }

  /** The 256 bytes of an inode. */
  private inode(number: number): Buffer {
    const { inodesPerGroup, inodes } = this.superblock;
    if (number < 1 || number > inodes) throw new RangeError(`there is no inode ${number}`);
    const group = Math.floor((number - 1) / inodesPerGroup);
    const descs = this.read(BLOCK_SIZE + group * DESC_SIZE, DESC_SIZE);
    const desc = decodeGroup(descs, 0, this.seed, group);
    if (desc === undefined) throw new RangeError(`bad descriptor of group ${group}`);
    const index = (number - 1) % inodesPerGroup;
    return this.read(desc.inodeTable * BLOCK_SIZE + index * INODE_SIZE, INODE_SIZE);
  }

  /** Content of an inode: pieces in order, holes as pieces of zeros no larger than 1 MiB. */
  *content({ raw, size }: Pick<FoundInode, "raw" | "size">): Generator<Buffer> {
    const extents = decodeExtents(raw.subarray(0x28, 0x64), (block) => this.block(block));
    let at = 0;
    const zeros = Buffer.alloc(1024 * 1024);
    const gap = function* (to: number): Generator<Buffer> {
      while (at < to) {
        const count = Math.min(zeros.length, to - at);
        yield zeros.subarray(0, count);
        at += count;
      }
    };
    for (let i = 0; i < extents.length; i += 3) {
      yield* gap((extents[i] ?? 0) * BLOCK_SIZE);
      for (let n = 0; n < (extents[i + 2] ?? 0); n += 256) {
        const blocks = Math.min(256, (extents[i + 2] ?? 0) - n);
        const bytes = this.read(((extents[i + 1] ?? 0) + n) * BLOCK_SIZE, blocks * BLOCK_SIZE);
        const piece = bytes.subarray(0, Math.max(0, size - at));
        yield piece;
        at += piece.length;
      }
    }
    yield* gap(size);
  }

  /** Everything about one inode but its content. */
  describe(number: number): FoundInode {
    const raw = this.inode(number);
    const bits = raw.readUInt16LE(0);
    const kind = KIND_OF.get(bits & 0xf000);
    if (kind === undefined) throw new RangeError(`inode ${number} is of no kind`);
    const time = decodeTime(raw.readUInt32LE(0x10), raw.readUInt32LE(0x88));
    const size = raw.readUInt32LE(0x4) + raw.readUInt32LE(0x6c) * 2 ** 32;
    const xattrBlock = raw.readUInt32LE(0x68) + raw.readUInt16LE(0x76) * 2 ** 32;
    const xattrs = decodeXattrs(raw, xattrBlock === 0 ? undefined : this.block(xattrBlock));
    const flags = raw.readUInt32LE(0x20);
    let target = "";
    if (kind === "symlink") target = this.linkTarget(raw);
    const device =
      kind === "char" || kind === "block"
        ? decodeDevice(raw.subarray(0x28, 0x64))
        : { major: 0, minor: 0 };
    return {
      raw,
      inode: number,
      kind,
      mode: bits & 0o7777,
      uid: raw.readUInt16LE(0x2) + raw.readUInt16LE(0x78) * 65_536,
      gid: raw.readUInt16LE(0x18) + raw.readUInt16LE(0x7a) * 65_536,
      mtime: time.seconds,
      mtimeNsec: time.nsec,
      links: raw.readUInt16LE(0x1a),
      size,
      allocated: (raw.readUInt32LE(0x1c) + raw.readUInt16LE(0x74) * 2 ** 32) * 512,
      target,
      ...device,
      xattrs: Object.fromEntries(
        [...xattrs].map(([name, value]) => [name, Buffer.from(value).toString("hex")]),
      ),
      indexed: (flags & INODE_FLAG.index) !== 0,
    };
  }

  /** The names in a directory with their inodes, without `.` and `..`, as they lie there. */
  *list({ raw }: Pick<FoundInode, "raw">): Generator<{ name: string; inode: number }> {
    for (const bytes of this.directoryBlocks(raw)) {
      for (const { name, inode } of decodeDirectoryBlock(bytes)) {
        if (name !== "." && name !== "..") yield { name, inode };
      }
    }
  }

  /**
   * The whole tree: path (latin1, "" is the root) → entry. `lost+found` is there when it is on disk.
   * Each inode is read once, whatever its number of names.
   */
  tree(): Map<string, FoundEntry> {
    const found = new Map<string, FoundEntry>();
    const known = new Map<number, FoundEntry>();
    const pending: [string, number][] = [["", ROOT_INODE]];
    for (let item = pending.pop(); item !== undefined; item = pending.pop()) {
      const [path, number] = item;
      const before = known.get(number);
      if (before !== undefined) {
        found.set(path, before);
        continue;
      }
      const { raw, ...rest } = this.describe(number);
      const hash = createHash("sha256");
      if (rest.kind === "file") {
        for (const piece of this.content({ raw, size: rest.size })) hash.update(piece);
      }
      const entry = { ...rest, sha256: rest.kind === "file" ? hash.digest("hex") : "" };
      known.set(number, entry);
      found.set(path, entry);
      if (entry.kind !== "directory") continue;
      for (const { name, inode } of this.list({ raw })) {
        pending.push([path === "" ? name : `${path}/${name}`, inode]);
      }
    }
    return found;
  }

  /**
   * Follow names from the root, but no links.
   * @returns the last thing on the way; undefined when a name is not there
   */
  lookup(names: readonly string[]): { kind: FoundKind; path: string; target: string } | undefined {
    let raw = this.inode(ROOT_INODE);
    let path = "";
    for (const name of names) {
      // Names on disk are bytes.
      const wanted = Buffer.from(name).toString("latin1");
      let number: number | undefined;
      for (const bytes of this.directoryBlocks(raw)) {
        number = decodeDirectoryBlock(bytes).find((entry) => entry.name === wanted)?.inode;
        if (number !== undefined) break;
      }
      if (number === undefined) return undefined;
      raw = this.inode(number);
      path += `/${name}`;
      const kind = KIND_OF.get(raw.readUInt16LE(0) & 0xf000);
      if (kind === undefined) return undefined;
      if (kind !== "directory") {
        return { kind, path, target: kind === "symlink" ? this.linkTarget(raw) : "" };
      }
    }
    return { kind: "directory", path, target: "" };
  }

  /** Where a link leads, as latin1. */
  private linkTarget(raw: Buffer): string {
    const size = raw.readUInt32LE(0x4);
    if (size > 4096) throw new RangeError(`a link of ${size} bytes`);
    return size < 60
      ? raw.toString("latin1", 0x28, 0x28 + size)
      : Buffer.concat([...this.content({ raw, size })]).toString("latin1");
  }

  private *directoryBlocks(raw: Buffer): Generator<Buffer> {
    const extents = decodeExtents(raw.subarray(0x28, 0x64), (block) => this.block(block));
    let blocks = 0;
    for (let i = 0; i < extents.length; i += 3) {
      for (let n = 0; n < (extents[i + 2] ?? 0); n++) {
        blocks += 1;
        if (blocks > MAX_DIRECTORY_BLOCKS) throw new RangeError("a directory without end");
        yield this.block((extents[i + 1] ?? 0) + n);
      }
    }
  }

  /** Number of groups. */
  get groups(): number {
    return Math.ceil(this.superblock.blocks / BLOCKS_PER_GROUP);
  }
}
