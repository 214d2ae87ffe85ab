/**
 * Tar header blocks: v7, ustar (POSIX.1-1988) and GNU, as far as layers use them. Text is kept as
 * byte strings (latin1), so that names survive whatever their encoding.
 */
import { layerError } from "../errors.ts";

/** Bytes per header and unit of padding. */
export const RECORD = 512;

/** The magic `ustar`, as numbers of four bytes and one; a NUL or a blank follows. */
const USTA = 0x75737461;
const R = 0x72;

/** Where a header block lies. */
export interface HeaderPlace {
  /** Memory that holds it. */
  bytes: Buffer;
  /** The same memory, by fours. */
  words: Uint32Array;
  /** Its first byte: a multiple of four. */
  at: number;
}

/**
 * The words of some bytes; undefined when they do not lie at a multiple of four. A few bytes at the end
 * may have none.
 */
export function wordsOf(bytes: Buffer): Uint32Array | undefined {
  if (bytes.byteOffset % 4 !== 0) return undefined;
  return new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length >>> 2);
}

/** The fields of one header block as they stand, before any extended header. */
export interface RawHeader {
  name: string;
  mode: number;
  uid: number;
  gid: number;
  size: number;
  mtime: number;
  /** One character; NUL is given as "0". */
  type: string;
  link: string;
  major: number;
  minor: number;
  /** Magic says GNU: the prefix area holds other things. */
  gnu: boolean;
}

/** Bytes up to the first NUL. */
export function text(block: Buffer, from: number, length: number): string {
  let end = from;
  while (end < from + length && block[end] !== 0) end++;
  return end === from ? "" : block.toString("latin1", from, end);
}

/**
 * A number field: octal with spaces or NULs around it, or base-256 (high bit of the first byte set,
 * two's complement). Throws when it is neither, or beyond 2^53.
 */
export function numeric(block: Buffer, from: number, length: number): number {
  const first = block[from] ?? 0;
  if (first & 0x80) {
    const negative = (first & 0x40) !== 0;
    // The marker bit is not part of the value; the sign bit is.
    let value = negative ? (first & 0x7f) - 0x80 : first & 0x3f;
    for (let i = 1; i < length; i++) {
      value = value * 256 + (block[from + i] ?? 0);
      if (!Number.isSafeInteger(value)) throw badNumber(block, from, length);
    }
    return value;
  }
  let at = from;
  const end = from + length;
  while (at < end && (block[at] === 0x20 || block[at] === 0)) at++;
  let value = 0;
  for (; at < end; at++) {
    const digit = (block[at] ?? 0) - 0x30;
    if (digit < 0 || digit > 7) break;
    value = value * 8 + digit;
  }
  for (; at < end; at++) {
    if (block[at] !== 0x20 && block[at] !== 0) throw badNumber(block, from, length);
  }
  return value;
}

/** The error for a number field that is none. */
function badNumber(block: Buffer, from: number, length: number): Error {
  return layerError(
    "TAR_NUMBER",
    "Cannot read a number in a tar header",
    `A field of ${length} bytes holds ${JSON.stringify(block.toString("latin1", from, from + length))}.`,
  );
}

/** Is this block all zero (the end of an archive)? */
export function isZero({ bytes, words, at }: HeaderPlace): boolean {
  if (bytes[at] !== 0) return false;
  const from = at >>> 2;
  for (let i = from; i < from + RECORD / 4; i++) if (words[i] !== 0) return false;
  return true;
}

/** Sum of all bytes of a block, four at a time. */
function sum({ words, at }: HeaderPlace): number {
  // Two sums of 16 bits each: 256 bytes at most are added to either.
  let pairs = 0;
  const from = at >>> 2;
  for (let i = from; i < from + RECORD / 4; i++) {
    const word = words[i] ?? 0;
    pairs = (pairs + (word & 0xff00ff) + ((word >>> 8) & 0xff00ff)) | 0;
  }
  return (pairs & 0xffff) + (pairs >>> 16);
}

/** Sum of the bytes with the checksum field as spaces, as unsigned and as signed characters. */
function checksumOk(place: HeaderPlace): boolean {
  const { bytes, at } = place;
  let unsigned = sum(place) + 8 * 0x20;
  for (let i = at + 148; i < at + 156; i++) unsigned -= bytes[i] ?? 0;
  const stored = numeric(bytes, at + 148, 8);
  if (stored === unsigned) return true;
  let high = 0;
  for (let i = 0; i < RECORD; i++) {
    if ((bytes[at + i] ?? 0) > 127 && (i < 148 || i >= 156)) high++;
  }
  return stored === unsigned - 256 * high;
}

/**
 * Read a header block. Throws ERR_LAYER_TAR_CHECKSUM or ERR_LAYER_TAR_NUMBER.
 */
export function parseHeader(place: HeaderPlace): RawHeader {
  const { bytes, at } = place;
  if (!checksumOk(place)) {
    throw layerError(
      "TAR_CHECKSUM",
      "Cannot read a layer's tar archive",
      `A header's checksum is wrong (its name field holds ${JSON.stringify(text(bytes, at, 40))}).`,
    );
  }
  const named = bytes.readUInt32BE(at + 257) === USTA && bytes[at + 261] === R;
  const ustar = named && bytes[at + 262] === 0;
  const gnu = named && bytes[at + 262] === 0x20;
  let name = text(bytes, at, 100);
  // GNU keeps times and sparse maps where ustar has the prefix.
  const prefix = ustar ? text(bytes, at + 345, 155) : "";
  if (prefix !== "") name = `${prefix}/${name}`;
  const type = String.fromCharCode(bytes[at + 156] ?? 0);
  const device = (ustar || gnu) && (type === "3" || type === "4");
  return {
    name,
    mode: numeric(bytes, at + 100, 8) & 0o7777,
    uid: numeric(bytes, at + 108, 8),
    gid: numeric(bytes, at + 116, 8),
    size: numeric(bytes, at + 124, 12),
    mtime: numeric(bytes, at + 136, 12),
    type: type === "\0" ? "0" : type,
    link: text(bytes, at + 157, 100),
    major: device ? numeric(bytes, at + 329, 8) : 0,
    minor: device ? numeric(bytes, at + 337, 8) : 0,
    gnu,
  };
}
