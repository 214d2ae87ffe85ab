/** Reads a file system back, for lookups, tests and checks: it trusts checksums no more than it must. */
import { createHash } from "node:crypto";
import { closeSync, openSync, readSync } from "node:fs";
import {
  BLOCK_SIZE,
  BLOCKS_PER_GROUP,
  DESC_SIZE,
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
  kind: InodeKind;
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

/** Kinds of what is found. */
export type FoundKind = InodeKind;

const KIND_OF = new Map(Object.entries(MODE_TYPE).map(([kind, bits]) => [bits, kind as InodeKind]));

/** An image open for reading. */
export class Ext4Reader {
  readonly superblock: DecodedSuperblock;
  private readonly fd: number;
  private readonly seed: number;

  /** Open an image; throws RangeError when it is no ext4 file system. */
  constructor(path: string) {
    this.fd = openSync(path, "r");
    const superblock = decodeSuperblock(this.read(SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE));
    if (superblock === undefined) {
      this.close();
      throw new RangeError(`${path} is no ext4 file system`);
    }
    this.superblock = superblock;
    this.seed = crc32c(0xffffffff, superblock.uuid);
  }

  close(): void {
    closeSync(this.fd);
  }

  private read(offset: number, length: number): Buffer {
    const bytes = Buffer.alloc(length);
    readSync(this.fd, bytes, 0, length, offset);
    return bytes;
  }

  private block(number: number): Buffer {
    return this.read(number * BLOCK_SIZE, BLOCK_SIZE);
  }

  /** The 256 bytes of an inode. */
  private inode(number: number): Buffer {
    const { inodesPerGroup } = this.superblock;
    const group = Math.floor((number - 1) / inodesPerGroup);
    const descs = this.read(BLOCK_SIZE + group * DESC_SIZE, DESC_SIZE);
    const desc = decodeGroup(descs, 0, this.seed, group);
    if (desc === undefined) throw new RangeError(`bad descriptor of group ${group}`);
    const index = (number - 1) % inodesPerGroup;
    return this.read(desc.inodeTable * BLOCK_SIZE + index * INODE_SIZE, INODE_SIZE);
  }

  /** Content of an inode: pieces in order, holes as pieces of zeros no larger than 1 MiB. */
  private *content(raw: Buffer, size: number): Generator<Buffer> {
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

  /** Everything about one inode. */
  private describe(number: number): FoundEntry & { raw: Buffer } {
    const raw = this.inode(number);
    const bits = raw.readUInt16LE(0);
    const kind = KIND_OF.get(bits & 0xf000);
    if (kind === undefined) throw new RangeError(`inode ${number} is of no kind`);
    const time = decodeTime(raw.readUInt32LE(0x10), raw.readUInt32LE(0x88));
    const size = raw.readUInt32LE(0x4) + raw.readUInt32LE(0x6c) * 2 ** 32;
    const xattrBlock = raw.readUInt32LE(0x68) + raw.readUInt16LE(0x76) * 2 ** 32;
    const xattrs = decodeXattrs(raw, xattrBlock === 0 ? undefined : this.block(xattrBlock));
    const flags = raw.readUInt32LE(0x20);
    const hash = createHash("sha256");
    let target = "";
    if (kind === "file") for (const piece of this.content(raw, size)) hash.update(piece);
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
      sha256: kind === "file" ? hash.digest("hex") : "",
      allocated: (raw.readUInt32LE(0x1c) + raw.readUInt16LE(0x74) * 2 ** 32) * 512,
      target,
      ...device,
      xattrs: Object.fromEntries(
        [...xattrs].map(([name, value]) => [name, Buffer.from(value).toString("hex")]),
      ),
      indexed: (flags & INODE_FLAG.index) !== 0,
    };
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
      const { raw, ...entry } = this.describe(number);
      known.set(number, entry);
      found.set(path, entry);
      if (entry.kind !== "directory") continue;
      for (const bytes of this.directoryBlocks(raw)) {
        for (const { name, inode } of decodeDirectoryBlock(bytes)) {
          if (name === "." || name === "..") continue;
          pending.push([path === "" ? name : `${path}/${name}`, inode]);
        }
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
    return size < 60
      ? raw.toString("latin1", 0x28, 0x28 + size)
      : Buffer.concat([...this.content(raw, size)]).toString("latin1");
  }

  private *directoryBlocks(raw: Buffer): Generator<Buffer> {
    const extents = decodeExtents(raw.subarray(0x28, 0x64), (block) => this.block(block));
    for (let i = 0; i < extents.length; i += 3) {
      for (let n = 0; n < (extents[i + 2] ?? 0); n++) yield this.block((extents[i + 1] ?? 0) + n);
    }
  }

  /** Number of groups. */
  get groups(): number {
    return Math.ceil(this.superblock.blocks / BLOCKS_PER_GROUP);
  }
}
