/**
 * Headers of POSIX pax archives with GNU.sparse 1.0, as protocol/README.md section 7 uses
 * them: names are bytes, times have nanoseconds. Pure: bytes in, values out.
 *
 * Own code instead of a library: the known ones decode names as UTF-8, which loses file names
 * that are not, drop nanoseconds and cannot keep sparse files.
 */
import { VmsanError } from "../../model/errors.ts";
import { textOfBytes } from "../../util/byte-text.ts";

/** Size of a tar record, in bytes. */
export const BLOCK = 512;
/** Longest name or link target, in bytes (PATH_MAX). */
export const MAX_NAME = 4096;
/** Longest pax header, in bytes. */
const MAX_PAX = 1 << 20;
/** Most data segments of a sparse file. */
export const MAX_SEGMENTS = 1 << 20;

/** What an archive holds. */
export type EntryType = "file" | "dir" | "symlink" | "hardlink" | "fifo" | "char" | "block";

/** A run of data in a sparse file. */
export interface Segment {
  offset: number;
  length: number;
}

/** One entry of an archive. */
export interface ArchiveEntry {
  /** Bytes, relative, without a trailing slash. */
  name: Buffer;
  type: EntryType;
  /** Permission bits, set-id bits included. */
  mode: number;
  uid: number;
  gid: number;
  /** The file's size; of a sparse file its apparent one. */
  size: number;
  /** Nanoseconds since the epoch. */
  mtimeNs: bigint;
  /** Target of a symlink, or name of the earlier entry that a hard link joins. */
  link?: Buffer;
  /** Extended attributes, by name; they are written, and not read. */
  attributes?: Attributes;
}

/** Values of extended attributes by name (`user.mine`). */
export type Attributes = ReadonlyMap<string, Buffer>;

/** An archive that cannot be trusted or understood. */
export function archiveError(why: string, name?: Buffer): VmsanError {
  const of = name === undefined ? "" : ` at ${JSON.stringify(textOfBytes(name))}`;
  return new VmsanError({
    code: "ERR_AGENT_ARCHIVE",
    message: `The archive from the guest is refused${of}`,
    why,
    fix: "Look at that path in the guest; nothing has been written to the destination.",
  });
}

const TYPES: Record<EntryType, string> = {
  file: "0",
  hardlink: "1",
  symlink: "2",
  char: "3",
  block: "4",
  dir: "5",
  fifo: "6",
};
const TYPE_OF = new Map(Object.entries(TYPES).map(([type, flag]) => [flag, type as EntryType]));

/** Bytes up to the next multiple of a record. */
export function padding(length: number): number {
  return (BLOCK - (length % BLOCK)) % BLOCK;
}

/** One ustar header. */
function encodeHeader(
  name: Buffer,
  flag: string,
  entry: Pick<ArchiveEntry, "mode" | "uid" | "gid" | "mtimeNs">,
  size: number,
  link?: Buffer,
): Buffer {
  const block = Buffer.alloc(BLOCK);
  const octal = (value: number, offset: number, width: number): void => {
    const text = value.toString(8).padStart(width - 1, "0");
    // What does not fit is in the pax header, which wins.
    block.write(text.length < width ? text : "0".repeat(width - 1), offset, "latin1");
  };
  name.copy(block, 0, 0, 100);
  octal(entry.mode & 0o7777, 100, 8);
  octal(entry.uid, 108, 8);
  octal(entry.gid, 116, 8);
  octal(size, 124, 12);
  octal(Math.max(0, Number(entry.mtimeNs / 1_000_000_000n)), 136, 12);
  block.write(flag, 156, "latin1");
  link?.copy(block, 157, 0, 100);
  block.write("ustar\u000000", 257, "latin1");
  block.fill(" ", 148, 156);
  let sum = 0;
  for (const byte of block) sum += byte;
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return block;
}

/** One `LENGTH KEY=VALUE\n` record. */
function paxRecord(key: string, value: Buffer): Buffer {
  const rest = 3 + Buffer.byteLength(key) + value.length;
  let length = rest + String(rest).length;
  if (String(length).length > String(rest).length) length = rest + String(length).length;
  return Buffer.concat([Buffer.from(`${length} ${key}=`), value, Buffer.from("\n")]);
}

/** Nanoseconds as decimal seconds. */
function formatTime(ns: bigint): string {
  const sign = ns < 0n ? "-" : "";
  const abs = ns < 0n ? -ns : ns;
  const fraction = String(abs % 1_000_000_000n)
    .padStart(9, "0")
    .replace(/0+$/, "");
  return `${sign}${abs / 1_000_000_000n}${fraction === "" ? "" : `.${fraction}`}`;
}

/** Decimal seconds as nanoseconds; undefined for anything else. */
function parseTime(text: string): bigint | undefined {
  const match = /^(-?)(\d{1,15})(?:\.(\d{0,9})\d*)?$/.exec(text);
  if (match === null) return undefined;
  const ns = BigInt(match[2] ?? "0") * 1_000_000_000n + BigInt((match[3] ?? "").padEnd(9, "0"));
  return match[1] === "-" ? -ns : ns;
}

/** Whether the bytes are text that UTF-8 can say. */
function isUtf8(bytes: Buffer): boolean {
  return Buffer.from(bytes.toString("utf8"), "utf8").equals(bytes);
}

/** The map in front of a sparse file's data, padded. */
function encodeMap(segments: readonly Segment[]): Buffer {
  const lines = segments.map(({ offset, length }) => `${offset}\n${length}\n`).join("");
  const text = Buffer.from(`${segments.length}\n${lines}`);
  return Buffer.concat([text, Buffer.alloc(padding(text.length))]);
}

/**
 * Everything in front of an entry's data.
 * @param segments where a sparse file has data; the data of all of them follows, then padding
 */
export function encodeEntry(entry: ArchiveEntry, segments?: readonly Segment[]): Buffer {
  const name = entry.type === "dir" ? Buffer.concat([entry.name, Buffer.from("/")]) : entry.name;
  const map = segments === undefined ? undefined : encodeMap(segments);
  let size = entry.type === "file" ? entry.size : 0;
  if (segments !== undefined && map !== undefined) {
    size = segments.reduce((sum, { length }) => sum + length, map.length);
  }
  const records: Buffer[] = [];
  const add = (key: string, value: string | Buffer): void => {
    records.push(paxRecord(key, Buffer.from(value)));
  };
  const utf8 = isUtf8(name) && (entry.link === undefined || isUtf8(entry.link));
  if (!utf8) add("hdrcharset", "BINARY");
  if (map === undefined) add("path", name);
  else {
    add("GNU.sparse.major", "1");
    add("GNU.sparse.minor", "0");
    add("GNU.sparse.name", name);
    add("GNU.sparse.realsize", String(entry.size));
  }
  if (entry.link !== undefined) add("linkpath", entry.link);
  if (size >= 0o77777777777) add("size", String(size));
  if (entry.uid > 0o7777777) add("uid", String(entry.uid));
  if (entry.gid > 0o7777777) add("gid", String(entry.gid));
  add("mtime", formatTime(entry.mtimeNs));
  for (const [key, value] of entry.attributes ?? []) {
    // As GNU tar has it: what ends a key does not stand in it.
    add(`SCHILY.xattr.${key.replaceAll("%", "%25").replaceAll("=", "%3D")}`, value);
  }
  const pax = Buffer.concat(records);
  const plain = { mode: 0o644, uid: 0, gid: 0, mtimeNs: 0n };
  return Buffer.concat([
    encodeHeader(Buffer.from("PaxHeader"), "x", plain, pax.length),
    pax,
    Buffer.alloc(padding(pax.length)),
    encodeHeader(name, TYPES[entry.type], entry, size, entry.link),
    ...(map === undefined ? [] : [map]),
  ]);
}

/** The two records that end an archive. */
export function encodeEnd(): Buffer {
  return Buffer.alloc(2 * BLOCK);
}

/** A header's fields before pax records are applied. */
export interface RawHeader {
  flag: string;
  name: Buffer;
  link: Buffer;
  mode: number;
  uid: number;
  gid: number;
  /** Bytes that follow, without padding. */
  size: number;
  mtimeNs: bigint;
}

/** A number in octal or base 256. */
function parseNumber(field: Buffer, what: string): number {
  const first = field[0] ?? 0;
  let value: number;
  if ((first & 0x80) !== 0) {
    value = first & 0x7f;
    for (const byte of field.subarray(1)) value = value * 256 + byte;
  } else {
    const text = field
      .toString("latin1")
      .replace(/[\0 ]+$/, "")
      .trim();
    value = /^[0-7]*$/.test(text) ? Number.parseInt(text === "" ? "0" : text, 8) : Number.NaN;
  }
  if (!Number.isSafeInteger(value)) throw archiveError(`A header's ${what} is no number.`);
  return value;
}

/** Up to the first NUL. */
function cString(field: Buffer): Buffer {
  const end = field.indexOf(0);
  return Buffer.from(end < 0 ? field : field.subarray(0, end));
}

/** Read one header record; undefined for a record of zeros (the archive's end). */
export function decodeHeader(block: Buffer): RawHeader | undefined {
  if (block.every((byte) => byte === 0)) return undefined;
  let sum = 0;
  for (let i = 0; i < BLOCK; i += 1) sum += i >= 148 && i < 156 ? 32 : (block[i] ?? 0);
  if (parseNumber(block.subarray(148, 156), "checksum") !== sum) {
    throw archiveError("A header's checksum is wrong.");
  }
  const prefix = cString(block.subarray(345, 500));
  const name = cString(block.subarray(0, 100));
  const ustar = block.toString("latin1", 257, 263) === "ustar\0";
  return {
    flag: String.fromCharCode(block[156] ?? 0),
    name: ustar && prefix.length > 0 ? Buffer.concat([prefix, Buffer.from("/"), name]) : name,
    link: cString(block.subarray(157, 257)),
    mode: parseNumber(block.subarray(100, 108), "mode"),
    uid: parseNumber(block.subarray(108, 116), "uid"),
    gid: parseNumber(block.subarray(116, 124), "gid"),
    size: parseNumber(block.subarray(124, 136), "size"),
    mtimeNs: BigInt(parseNumber(block.subarray(136, 148), "time")) * 1_000_000_000n,
  };
}

/** Check the size of a pax header before it is read. */
export function checkPaxSize(size: number): void {
  if (size > MAX_PAX) throw archiveError(`A pax header of ${size} bytes.`);
}

/** The records of a pax header. */
export function decodePax(data: Buffer): Map<string, Buffer> {
  const records = new Map<string, Buffer>();
  for (let at = 0; at < data.length;) {
    const space = data.indexOf(0x20, at);
    const text = space < 0 ? "" : data.toString("latin1", at, space);
    const length = /^\d{1,7}$/.test(text) ? Number(text) : 0;
    const end = at + length;
    const equals = data.indexOf(0x3d, space);
    const whole = end <= data.length && space + 1 < end && data[end - 1] === 0x0a;
    if (!whole || equals < 0 || equals >= end) throw archiveError("A broken pax record.");
    records.set(data.toString("latin1", space + 1, equals), data.subarray(equals + 1, end - 1));
    at = end;
  }
  return records;
}

/** A whole number in a pax record. */
function paxNumber(records: Map<string, Buffer>, key: string): number | undefined {
  const text = records.get(key)?.toString("latin1");
  if (text === undefined) return undefined;
  const value = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(value)) throw archiveError(`A pax record ${key} that is no number.`);
  return value;
}

/** A header and its pax records, as an entry and what follows it. */
export interface DecodedEntry {
  entry: ArchiveEntry;
  /** Bytes that follow the header, without padding. */
  stored: number;
  /** The data begins with a map of segments. */
  sparse: boolean;
}

/** Join a header with its pax records. */
export function decodeEntry(header: RawHeader, pax: Map<string, Buffer>): DecodedEntry {
  const sparse = pax.has("GNU.sparse.major");
  let name = pax.get("GNU.sparse.name") ?? pax.get("path") ?? header.name;
  const type = header.flag === "\0" || header.flag === "7" ? "file" : TYPE_OF.get(header.flag);
  if (type === undefined)
    throw archiveError(`An entry of the unknown type ${JSON.stringify(header.flag)}.`, name);
  if (sparse && (type !== "file" || pax.get("GNU.sparse.major")?.toString() !== "1")) {
    throw archiveError("A sparse file of an unknown version.", name);
  }
  while (name.length > 1 && name.at(-1) === 0x2f) name = name.subarray(0, -1);
  const link = pax.get("linkpath") ?? header.link;
  const stored = paxNumber(pax, "size") ?? header.size;
  const time = pax.get("mtime")?.toString("latin1");
  const linked = type === "symlink" || type === "hardlink";
  return {
    entry: {
      name,
      type,
      mode: header.mode & 0o7777,
      uid: paxNumber(pax, "uid") ?? header.uid,
      gid: paxNumber(pax, "gid") ?? header.gid,
      size: type === "file" ? (paxNumber(pax, "GNU.sparse.realsize") ?? stored) : 0,
      mtimeNs: (time === undefined ? undefined : parseTime(time)) ?? header.mtimeNs,
      ...(linked ? { link } : {}),
    },
    // Some writers give links a size although nothing follows them.
    stored: type === "file" ? stored : 0,
    sparse,
  };
}
