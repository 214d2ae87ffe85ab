/**
 * The little of tar that image archives need: a table of contents of a file, and headers
 * for writing one. Layers are not read here.
 */
import type { FileHandle } from "node:fs/promises";
import { imageError } from "../errors.ts";

const BLOCK = 512;
/** Most members in an image archive. */
const MEMBER_LIMIT = 100_000;
/** Most bytes of a long name or of extended headers. */
const HEADER_LIMIT = 1 << 20;

/** A member of an archive. */
export interface Member {
  /** Without leading `./` and `/`. */
  name: string;
  type: "file" | "link" | "symlink" | "other";
  /** Target of a link. */
  target: string;
  /** Where its content begins in the file. */
  offset: number;
  /** Bytes of content. */
  size: number;
}

/** The error for an archive that is no tar archive or ends early. */
export function archiveError(path: string, why: string, cause?: unknown): Error {
  return imageError(
    "ERR_IMAGE_ARCHIVE",
    `Cannot read the image archive ${path}`,
    why,
    "Make it again, e.g. with `docker save`, `skopeo copy … oci-archive:FILE` or `vmsan image save`.",
    cause,
  );
}

/** A string that ends at the first NUL. */
function text(block: Buffer, start: number, end: number): string {
  const nul = block.indexOf(0, start);
  return block.toString("utf8", start, nul === -1 || nul > end ? end : nul);
}

/** An octal number, or a binary one when its first bit is set. */
function number(block: Buffer, start: number, length: number): number {
  if (((block[start] ?? 0) & 0x80) !== 0) {
    let value = BigInt((block[start] ?? 0) & 0x7f);
    for (let at = start + 1; at < start + length; at += 1) {
      value = (value << 8n) | BigInt(block[at] ?? 0);
    }
    return Number(value);
  }
  const digits = text(block, start, start + length).trim();
  return digits === "" ? 0 : /^[0-7]+$/.test(digits) ? Number.parseInt(digits, 8) : Number.NaN;
}

/** Whether the header's sum is right; every tar writer sets it. */
function checksumMatches(block: Buffer): boolean {
  let sum = 0;
  for (let at = 0; at < BLOCK; at += 1) sum += at >= 148 && at < 156 ? 32 : (block[at] ?? 0);
  return sum === number(block, 148, 8);
}

/** The records of a PAX extended header. */
function paxRecords(data: Buffer): Map<string, string> {
  const records = new Map<string, string>();
  for (let at = 0; at < data.length;) {
    const space = data.indexOf(0x20, at);
    const length = Number(data.toString("latin1", at, space));
    if (space === -1 || !Number.isInteger(length) || length < 5 || at + length > data.length) break;
    const record = data.toString("utf8", space + 1, at + length - 1);
    const equals = record.indexOf("=");
    records.set(record.slice(0, equals), record.slice(equals + 1));
    at += length;
  }
  return records;
}

const TYPES: Record<string, Member["type"]> = {
  "\0": "file",
  "0": "file",
  "7": "file",
  "1": "link",
  "2": "symlink",
};

/** Strip what means the archive's own root. */
export function cleanName(name: string): string {
  return name.replace(/^(?:\.?\/)+/, "").replace(/\/+$/, "");
}

/**
 * List an archive's members by reading only its headers. Of equal names the last counts.
 * @param size of the file, in bytes
 */
export async function listTar(
  handle: FileHandle,
  size: number,
  path: string,
): Promise<Map<string, Member>> {
  const members = new Map<string, Member>();
  const block = Buffer.alloc(BLOCK);
  let longName: string | undefined;
  let longTarget: string | undefined;
  let pax = new Map<string, string>();
  let ended = false;
  for (let at = 0; at + BLOCK <= size;) {
    await handle.read(block, 0, BLOCK, at);
    if (block.every((byte) => byte === 0)) {
      ended = true;
      break;
    }
    if (!checksumMatches(block)) {
      const why = at === 0 ? "It is not a tar archive." : `The header at byte ${at} is damaged.`;
      throw archiveError(path, why);
    }
    const type = String.fromCharCode(block[156] ?? 0);
    const offset = at + BLOCK;
    const special = "LKxg".includes(type);
    const length = !special && pax.has("size") ? Number(pax.get("size")) : number(block, 124, 12);
    if (!Number.isSafeInteger(length) || length < 0) {
      throw archiveError(path, `The header at byte ${at} has an impossible size.`);
    }
    if (offset + length > size) {
      throw archiveError(path, `It is cut off: its member at byte ${at} goes beyond the end.`);
    }
    at = offset + Math.ceil(length / BLOCK) * BLOCK;
    if (special) {
      if (length > HEADER_LIMIT) throw archiveError(path, "A header is larger than 1 MiB.");
      const data = Buffer.alloc(length);
      await handle.read(data, 0, length, offset);
      if (type === "L") longName = text(data, 0, length);
      else if (type === "K") longTarget = text(data, 0, length);
      else if (type === "x") pax = paxRecords(data);
      continue;
    }
    const prefix = block.toString("latin1", 257, 262) === "ustar" ? text(block, 345, 500) : "";
    const short = text(block, 0, 100);
    const name = cleanName(
      pax.get("path") ?? longName ?? (prefix === "" ? short : `${prefix}/${short}`),
    );
    const kind = TYPES[type] ?? "other";
    members.set(name, {
      name,
      type: kind,
      target: pax.get("linkpath") ?? longTarget ?? text(block, 157, 257),
      offset,
      size: kind === "file" ? length : 0,
    });
    if (members.size > MEMBER_LIMIT) throw archiveError(path, "It has too many members.");
    [longName, longTarget, pax] = [undefined, undefined, new Map<string, string>()];
  }
  if (members.size === 0) {
    throw archiveError(path, ended || size === 0 ? "It is empty." : "It is not a tar archive.");
  }
  return members;
}

/** A ustar header of a regular file, owned by root, of time 0: same content, same archive. */
export function tarHeader(name: string, size: number): Buffer {
  if (Buffer.byteLength(name) > 100) throw new RangeError(`Name too long: ${name}`);
  const block = Buffer.alloc(BLOCK);
  block.write(name, 0);
  block.write("0000644\x000000000\x000000000\0", 100);
  // Eleven octal digits end at 8 GiB; beyond, GNU's binary form.
  if (size < 8 ** 11) block.write(size.toString(8).padStart(11, "0"), 124);
  else {
    block[124] = 0x80;
    block.writeBigUInt64BE(BigInt(size), 128);
  }
  block.write("00000000000\0", 136);
  block.write("        ", 148);
  block.write("0", 156);
  block.write("ustar\x0000", 257);
  let sum = 0;
  for (const byte of block) sum += byte;
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  return block;
}

/** The zero bytes after a member's content. */
export function tarPadding(size: number): Buffer {
  return Buffer.alloc((BLOCK - (size % BLOCK)) % BLOCK);
}

/** The end of an archive. */
export function tarTrailer(): Buffer {
  return Buffer.alloc(2 * BLOCK);
}
