/**
 * Reads a tar archive as a stream of entries, with bounded memory: extended headers are applied,
 * contents are handed on in pieces.
 */
import { createHash, type Hash } from "node:crypto";
import type { ByteSource } from "../byte-source.ts";
import { layerError, readable } from "../errors.ts";
import type { LayerLimits } from "../limits.ts";
import { isZero, parseHeader, RECORD, text, type RawHeader } from "./header.ts";
import { parsePax, paxInteger, paxTime } from "./pax.ts";
import {
  badSparse,
  checkSparse,
  decimal,
  listedSparse,
  OLD_EXTENSION,
  oldSparse,
  takeOldEntries,
  type SparseMap,
} from "./sparse.ts";
import { paxXattrs } from "./xattrs.ts";

/** What a tar entry makes. */
export type TarKind = "file" | "hardlink" | "symlink" | "char" | "block" | "directory" | "fifo";

/** One entry, extended headers applied. Names and targets are byte strings (latin1). */
export interface TarEntry {
  kind: TarKind;
  /** As in the archive: may be absolute, hold `..`, or end in `/`. */
  path: string;
  link: string;
  mode: number;
  uid: number;
  gid: number;
  /** Bytes of a file, holes included. */
  size: number;
  mtime: number;
  mtimeNsec: number;
  major: number;
  minor: number;
  xattrs: Map<string, Uint8Array> | undefined;
}

/** Takes a file's content: ascending offsets, `chunk[from … to−1]`. */
export type DataSink = (offset: number, chunk: Uint8Array, from: number, to: number) => void;

const KINDS: Readonly<Record<string, TarKind>> = {
  "0": "file",
  "1": "hardlink",
  "2": "symlink",
  "3": "char",
  "4": "block",
  "5": "directory",
  "6": "fifo",
  "7": "file",
  S: "file",
  D: "directory",
};
/** Types without content, whatever their size field says (as Go's archive/tar has it). */
const NO_DATA = new Set<TarKind>(["hardlink", "symlink", "char", "block", "directory", "fifo"]);
/** No user or group has this number or a larger one. */
const MAX_ID = 2 ** 32 - 2;
const MAX_SPARSE_PIECES = 1_000_000;

/** Reads one archive. Call {@link next} until undefined, then {@link drain}. */
export class TarReader {
  private readonly source: ByteSource;
  private readonly limits: LayerLimits;
  private readonly onBytes: ((total: number) => void) | undefined;
  private readonly hash: Hash = createHash("sha256");
  private readonly block = Buffer.allocUnsafeSlow(RECORD);
  private piece: Uint8Array = new Uint8Array(0);
  private at = 0;
  /** Bytes of the archive that have been taken from the source. */
  total = 0;
  private readonly globals = new Map<string, string>();
  /** Content of the current entry that has not been read: bytes stored and padding. */
  private stored = 0;
  private padding = 0;
  /** Bytes of extended headers in front of the current entry. */
  private extended = 0;
  private map: SparseMap | undefined;

  /** @param onBytes told of the archive's bytes taken so far; may throw to stop the reading */
  constructor(source: ByteSource, limits: LayerLimits, onBytes?: (total: number) => void) {
    this.source = source;
    this.limits = limits;
    this.onBytes = onBytes;
  }

  /** Fetch the next piece; false at the end. */
  private more(): boolean {
    const piece = this.source.next();
    if (piece === undefined) {
      this.piece = new Uint8Array(0);
      this.at = 0;
      return false;
    }
    this.hash.update(piece);
    this.total += piece.length;
    this.onBytes?.(this.total);
    this.piece = piece;
    this.at = 0;
    return true;
  }

  /** Fill `into` entirely; gives the bytes there were, fewer only at the end. */
  private read(into: Buffer): number {
    let done = 0;
    while (done < into.length) {
      if (this.at === this.piece.length && !this.more()) return done;
      const count = Math.min(into.length - done, this.piece.length - this.at);
      into.set(this.piece.subarray(this.at, this.at + count), done);
      this.at += count;
      done += count;
    }
    return done;
  }

  /** The next block, or undefined at the very end. */
  private record(): Buffer | undefined {
    const got = this.read(this.block);
    if (got === 0) return undefined;
    if (got === RECORD) return this.block;
    // Zeros that were to become the blocks at the end: nothing is lost.
    if (this.block.subarray(0, got).every((byte) => byte === 0)) return undefined;
    throw truncated("in a header");
  }

  /**
   * Skip what fills a content up to the next block. Some writers leave it out behind the last one
   * (`umoci insert` 0.4.7 does), and Go's reader takes that for the end.
   */
  private skipPadding(bytes: number): void {
    for (let left = bytes; left > 0;) {
      if (this.at === this.piece.length && !this.more()) return;
      const count = Math.min(left, this.piece.length - this.at);
      this.at += count;
      left -= count;
    }
  }

  /** Skip bytes. */
  private skip(bytes: number): void {
    let left = bytes;
    while (left > 0) {
      if (this.at === this.piece.length && !this.more()) throw truncated("in a file's content");
      const count = Math.min(left, this.piece.length - this.at);
      this.at += count;
      left -= count;
    }
  }

  /** The whole content of a header entry. */
  private small(raw: RawHeader): Buffer {
    this.extended += raw.size;
    if (this.extended > this.limits.headerBytes) throw this.headerTooLarge(this.extended);
    if (raw.size < 0) throw negativeSize(raw.name);
    const bytes = Buffer.alloc(raw.size);
    if (this.read(bytes) < bytes.length) throw truncated("in an extended header");
    this.skipPadding(padding(raw.size));
    return bytes;
  }

  /** The error for headers beyond the limit. */
  private headerTooLarge(bytes: number): Error {
    return layerError(
      "TAR_HEADER_SIZE",
      `Cannot read a layer's tar headers of ${bytes} bytes`,
      `The extended headers of one entry may have at most ${this.limits.headerBytes} bytes.`,
    );
  }

  /** Take in a global header. */
  private global(raw: RawHeader): void {
    parsePax(this.small(raw), this.globals);
    this.extended = 0;
    let bytes = 0;
    for (const [key, value] of this.globals) bytes += key.length + value.length;
    if (bytes > this.limits.headerBytes) throw this.headerTooLarge(bytes);
  }

  /** The next entry, what was left of the one before skipped; undefined at the end. */
  next(): TarEntry | undefined {
    this.skip(this.stored);
    this.skipPadding(this.padding);
    this.stored = 0;
    this.padding = 0;
    this.extended = 0;
    // Most entries have no records of their own: no map is made for them.
    let pax = this.globals;
    let longName: string | undefined;
    let longLink: string | undefined;
    let zeros = 0;
    for (;;) {
      const block = this.record();
      if (block === undefined) {
        if (longName !== undefined || longLink !== undefined || pax !== this.globals) {
          throw truncated("behind an extended header");
        }
        return undefined;
      }
      if (isZero(block)) {
        // One zero block may stand between entries; two end the archive.
        if (++zeros === 2) return undefined;
        continue;
      }
      zeros = 0;
      const raw = parseHeader(block);
      switch (raw.type) {
        case "L":
          longName = cString(this.small(raw));
          continue;
        case "K":
          longLink = cString(this.small(raw));
          continue;
        case "x":
        case "X":
          if (pax === this.globals) pax = new Map(pax);
          parsePax(this.small(raw), pax);
          continue;
        case "g": {
          this.global(raw);
          if (pax !== this.globals) for (const [key, value] of this.globals) pax.set(key, value);
          continue;
        }
        case "V":
          // A volume label is no file.
          this.skip(raw.size);
          this.skipPadding(padding(raw.size));
          continue;
        default:
      }
      return this.entry(raw, block, pax, longName, longLink);
    }
  }

  private entry(
    raw: RawHeader,
    block: Buffer,
    pax: ReadonlyMap<string, string>,
    longName: string | undefined,
    longLink: string | undefined,
  ): TarEntry {
    const path = pax.get("GNU.sparse.name") || pax.get("path") || longName || raw.name;
    let kind = KINDS[raw.type];
    if (kind === undefined) {
      throw layerError(
        "TAR_TYPE",
        `Cannot read ${readable(path)} of a layer`,
        `Its tar entry has the unknown type ${JSON.stringify(raw.type)}.`,
      );
    }
    // v7 archives have no type for directories but a slash.
    if (kind === "file" && raw.type !== "S" && path.endsWith("/")) kind = "directory";
    const time = paxTime(pax, "mtime");
    const stored = paxInteger(pax, "size", 0) ?? raw.size;
    if (stored < 0) throw negativeSize(path);
    const uid = paxInteger(pax, "uid", 0) ?? raw.uid;
    const gid = paxInteger(pax, "gid", 0) ?? raw.gid;
    if (uid < 0 || uid > MAX_ID || gid < 0 || gid > MAX_ID) {
      throw layerError(
        "TAR_OWNER",
        `Cannot read ${readable(path)} of a layer`,
        `Its owner is ${uid}:${gid}; numbers go from 0 to ${MAX_ID}.`,
      );
    }
    if (raw.major < 0 || raw.major > 0xfff || raw.minor < 0 || raw.minor > 0xfffff) {
      throw layerError(
        "TAR_DEVICE",
        `Cannot read ${readable(path)} of a layer`,
        `Its device number is ${raw.major}:${raw.minor}.`,
      );
    }
    this.stored = NO_DATA.has(kind) && raw.type !== "D" ? 0 : stored;
    this.padding = padding(this.stored);
    this.map = undefined;
    let size = kind === "file" ? stored : 0;
    if (kind === "file") size = this.sparse(raw, block, pax) ?? size;
    return {
      kind,
      path,
      link: pax.get("linkpath") || longLink || raw.link,
      mode: raw.mode,
      uid,
      gid,
      size,
      mtime: time?.seconds ?? raw.mtime,
      mtimeNsec: time?.nsec ?? 0,
      major: raw.major,
      minor: raw.minor,
      xattrs: paxXattrs(pax),
    };
  }

  /** Read the map of a sparse file; gives its real size, or undefined for an ordinary file. */
  private sparse(
    raw: RawHeader,
    block: Buffer,
    pax: ReadonlyMap<string, string>,
  ): number | undefined {
    let map: number[];
    let size: number;
    if (raw.type === "S") {
      const old = oldSparse(block);
      ({ map, size } = old);
      for (let more = old.extended; more;) {
        const next = this.record();
        if (next === undefined) throw truncated("in a sparse file's map");
        takeOldEntries(next, 0, OLD_EXTENSION.entries, map);
        more = next[OLD_EXTENSION.more] !== 0;
        if (map.length > 2 * MAX_SPARSE_PIECES) throw badSparse("It has too many pieces.");
      }
    } else if (pax.get("GNU.sparse.major") === "1") {
      size = paxInteger(pax, "GNU.sparse.realsize", 0) ?? this.stored;
      map = this.leadingMap();
    } else {
      const listed = pax.get("GNU.sparse.map");
      if (listed === undefined) return undefined;
      size =
        paxInteger(pax, "GNU.sparse.size", 0) ??
        paxInteger(pax, "GNU.sparse.realsize", 0) ??
        this.stored;
      map = listedSparse(listed, MAX_SPARSE_PIECES);
    }
    if (size < 0) throw negativeSize(raw.name);
    checkSparse(map, size, this.stored);
    this.map = map;
    return size;
  }

  /** The map of PAX form 1.0: decimal lines in front of the content, padded to a block. */
  private leadingMap(): number[] {
    let digits = "";
    const numbers: number[] = [];
    let wanted = 1;
    let count = 0;
    while (count < wanted) {
      if (this.stored < RECORD) throw badSparse("Its map is cut off.");
      const block = this.record();
      if (block === undefined) throw truncated("in a sparse file's map");
      this.stored -= RECORD;
      for (let i = 0; i < RECORD && count < wanted; i++) {
        const byte = block[i] ?? 0;
        if (byte !== 0x0a) {
          digits += String.fromCharCode(byte);
          if (digits.length > 20) throw badSparse("Its map is malformed.");
          continue;
        }
        const value = decimal(digits);
        digits = "";
        if (count++ === 0) {
          if (value > MAX_SPARSE_PIECES) throw badSparse("It has too many pieces.");
          wanted = 1 + 2 * value;
        } else numbers.push(value);
      }
    }
    return numbers;
  }

  /** Hand on the current entry's content. */
  content(sink: DataSink): void {
    if (this.map === undefined) this.run(this.stored, 0, sink);
    else {
      for (let i = 0; i < this.map.length; i += 2) {
        this.run(this.map[i + 1] ?? 0, this.map[i] ?? 0, sink);
      }
    }
    this.stored = 0;
  }

  private run(length: number, offset: number, sink: DataSink): void {
    let done = 0;
    while (done < length) {
      if (this.at === this.piece.length && !this.more()) throw truncated("in a file's content");
      const count = Math.min(length - done, this.piece.length - this.at);
      sink(offset + done, this.piece, this.at, this.at + count);
      this.at += count;
      done += count;
    }
  }

  /** Read to the very end of the stream. @returns the SHA-256 of all of it, in hex */
  drain(): string {
    while (this.more());
    return this.hash.digest("hex");
  }
}

/** Bytes behind a content of this size, up to the next block. */
const padding = (size: number): number => (RECORD - (size % RECORD)) % RECORD;

/** The name in a GNU long-name entry. */
const cString = (bytes: Buffer): string => text(bytes, 0, bytes.length);

/** The error for an archive that stops too early. */
function truncated(where: string): Error {
  return layerError("TAR_TRUNCATED", "Cannot read a layer's tar archive", `It ends ${where}.`);
}

/** The error for a size below zero. */
function negativeSize(name: string): Error {
  return layerError(
    "TAR_SIZE",
    `Cannot read ${readable(name)} of a layer`,
    "Its size is negative.",
  );
}
