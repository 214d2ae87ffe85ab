/**
 * Reads a tar archive as a stream of entries, with bounded memory: extended headers are applied,
 * contents are handed on in pieces. What of it are blocks and bytes is blocks.ts's affair.
 */
import type { ByteSource } from "../byte-source.ts";
import { layerError, readable } from "../errors.ts";
import type { LayerLimits } from "../limits.ts";
import { Blocks, truncated, type DataSink } from "./blocks.ts";
import { isZero, parseHeader, RECORD, text, type HeaderPlace, type RawHeader } from "./header.ts";
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
/** No user or group has this number or a larger one. */
const MAX_ID = 2 ** 32 - 2;
const MAX_SPARSE_PIECES = 1_000_000;

/** Reads the entries of one archive. */
export class TarReader {
  private readonly blocks: Blocks;
  private readonly limits: Pick<LayerLimits, "headerBytes">;
  private readonly globals = new Map<string, string>();
  /** Content of the current entry that has not been read: bytes stored and padding. */
  private stored = 0;
  private padding = 0;
  /** Bytes of extended headers in front of the current entry. */
  private extended = 0;
  private map: SparseMap | undefined;

  constructor(source: ByteSource, limits: Pick<LayerLimits, "headerBytes">) {
    this.blocks = new Blocks(source);
    this.limits = limits;
  }

  /** Where in the archive the next byte lies: behind a header, the first one of the content. */
  get offset(): number {
    return this.blocks.offset;
  }

  /** Bytes that the archive stores for the current entry; none but a file's content when it is not sparse. */
  get storedBytes(): number {
    return this.stored;
  }

  /** Is the current entry a file whose holes are not stored? */
  get isSparse(): boolean {
    return this.map !== undefined;
  }

  /** The whole content of a header entry. */
  private small(raw: RawHeader): Buffer {
    this.extended += raw.size;
    if (this.extended > this.limits.headerBytes) throw this.headerTooLarge(this.extended);
    if (raw.size < 0) throw negativeSize(raw.name);
    const bytes = Buffer.alloc(raw.size);
    if (this.blocks.read(bytes) < bytes.length) throw truncated("in an extended header");
    this.blocks.skipPadding(padding(raw.size));
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
    this.blocks.skip(this.stored);
    this.blocks.skipPadding(this.padding);
    this.stored = 0;
    this.padding = 0;
    this.extended = 0;
    // Most entries have no records of their own: no map is made for them.
    let pax: Map<string, string> = this.globals;
    let longName: string | undefined;
    let longLink: string | undefined;
    let zeros = 0;
    for (;;) {
      const place = this.blocks.record();
      if (place === undefined) {
        if (longName !== undefined || longLink !== undefined || pax !== this.globals) {
          throw truncated("behind an extended header");
        }
        return undefined;
      }
      if (isZero(place)) {
        // One zero block may stand between entries; two end the archive.
        if (++zeros === 2) return undefined;
        continue;
      }
      zeros = 0;
      const raw = parseHeader(place);
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
          this.blocks.skip(raw.size);
          this.blocks.skipPadding(padding(raw.size));
          continue;
        default:
      }
      return this.entry(raw, place, pax, longName, longLink);
    }
  }

  private entry(
    raw: RawHeader,
    place: HeaderPlace,
    pax: ReadonlyMap<string, string>,
    longName: string | undefined,
    longLink: string | undefined,
  ): TarEntry {
    // Most entries have no records at all.
    const plain = pax.size === 0;
    const path = plain
      ? longName || raw.name
      : pax.get("GNU.sparse.name") || pax.get("path") || longName || raw.name;
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
    const time = plain ? undefined : paxTime(pax, "mtime");
    const stored = plain ? raw.size : (paxInteger(pax, "size", 0) ?? raw.size);
    if (stored < 0) throw negativeSize(path);
    const uid = plain ? raw.uid : (paxInteger(pax, "uid", 0) ?? raw.uid);
    const gid = plain ? raw.gid : (paxInteger(pax, "gid", 0) ?? raw.gid);
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
    // Other types have no content, whatever their size field says (as Go's archive/tar has it).
    this.stored = kind === "file" || raw.type === "D" ? stored : 0;
    this.padding = padding(this.stored);
    this.map = undefined;
    let size = kind === "file" ? stored : 0;
    if (kind === "file" && (!plain || raw.type === "S")) {
      size = this.sparse(raw, place, pax) ?? size;
    }
    return {
      kind,
      path,
      link: (plain ? "" : pax.get("linkpath")) || longLink || raw.link,
      mode: raw.mode,
      uid,
      gid,
      size,
      mtime: time?.seconds ?? raw.mtime,
      mtimeNsec: time?.nsec ?? 0,
      major: raw.major,
      minor: raw.minor,
      xattrs: plain ? undefined : paxXattrs(pax),
    };
  }

  /** Read the map of a sparse file; gives its real size, or undefined for an ordinary file. */
  private sparse(
    raw: RawHeader,
    { bytes, at }: HeaderPlace,
    pax: ReadonlyMap<string, string>,
  ): number | undefined {
    let map: number[];
    let size: number;
    if (raw.type === "S") {
      const old = oldSparse(bytes.subarray(at, at + RECORD));
      ({ map, size } = old);
      for (let more = old.extended; more;) {
        const next = this.blocks.block();
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
      const block = this.blocks.block();
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
    if (this.map === undefined) this.blocks.content(this.stored, 0, sink);
    else {
      for (let i = 0; i < this.map.length; i += 2) {
        this.blocks.content(this.map[i + 1] ?? 0, this.map[i] ?? 0, sink);
      }
    }
    this.stored = 0;
  }
}

/** Bytes behind a content of this size, up to the next block. */
const padding = (size: number): number => (RECORD - (size % RECORD)) % RECORD;

/** The name in a GNU long-name entry. */
const cString = (bytes: Buffer): string => text(bytes, 0, bytes.length);

/** The error for a size below zero. */
function negativeSize(name: string): Error {
  return layerError(
    "TAR_SIZE",
    `Cannot read ${readable(name)} of a layer`,
    "Its size is negative.",
  );
}
