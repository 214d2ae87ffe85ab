/** Writes tar headers that GNU tar and others read: ustar, GNU long names, PAX where needed. */
import { RECORD } from "./header.ts";
import type { TarEntry, TarKind } from "./reader.ts";

const TYPES: Readonly<Record<TarKind, string>> = {
  file: "0",
  hardlink: "1",
  symlink: "2",
  char: "3",
  block: "4",
  directory: "5",
  fifo: "6",
};
/** Largest numbers of the octal fields. */
const MAX_ID = 0o7777777;
const MAX_SIZE = 0o77777777777;

/** Bytes of zeros that bring a content to a block's end. */
export function padTo(size: number): Buffer {
  return Buffer.alloc((RECORD - (size % RECORD)) % RECORD);
}

/** A PAX record with its own length in front. */
function record(key: string, value: string): string {
  const rest = ` ${key}=${value}\n`;
  let length = rest.length;
  while (String(length).length + rest.length !== length) {
    length = String(length).length + rest.length;
  }
  return `${length}${rest}`;
}

/** One raw header block. Numbers that do not fit are written as 0: PAX records carry them. */
function block(name: string, type: string, entry: Partial<TarEntry>, size: number): Buffer {
  const bytes = Buffer.alloc(RECORD);
  const octal = (at: number, length: number, value: number, most: number): void => {
    const fits = value >= 0 && value <= most ? value : 0;
    bytes.write(fits.toString(8).padStart(length - 1, "0"), at, "latin1");
  };
  bytes.write(name.slice(0, 100), 0, "latin1");
  octal(100, 8, entry.mode ?? 0o644, 0o7777);
  octal(108, 8, entry.uid ?? 0, MAX_ID);
  octal(116, 8, entry.gid ?? 0, MAX_ID);
  octal(124, 12, size, MAX_SIZE);
  octal(136, 12, entry.mtime ?? 0, MAX_SIZE);
  bytes.fill(0x20, 148, 156);
  bytes.write(type, 156, "latin1");
  bytes.write((entry.link ?? "").slice(0, 100), 157, "latin1");
  bytes.write("ustar\x0000", 257, "latin1");
  octal(329, 8, entry.major ?? 0, MAX_ID);
  octal(337, 8, entry.minor ?? 0, MAX_ID);
  let sum = 0;
  for (const byte of bytes) sum += byte;
  bytes.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return bytes;
}

/** A header entry with content. */
function extended(name: string, type: string, content: Buffer): Buffer[] {
  return [block(name, type, {}, content.length), content, padTo(content.length)];
}

/** A time as PAX has it. */
function paxTime(seconds: number, nsec: number): string {
  if (seconds >= 0 || nsec === 0) {
    return nsec === 0 ? String(seconds) : `${seconds}.${String(nsec).padStart(9, "0")}`;
  }
  // The fraction counts upwards from the second below; as text it is minus what is left.
  return `-${-seconds - 1}.${String(1_000_000_000 - nsec).padStart(9, "0")}`;
}

/**
 * The header blocks of one entry.
 * @param stored bytes that follow as content; default the file's size
 * @param records further PAX records (byte strings)
 */
export function encodeHeader(
  entry: TarEntry,
  stored = entry.kind === "file" ? entry.size : 0,
  records: readonly (readonly [string, string])[] = [],
): Buffer {
  const pax = [...records];
  if (stored > MAX_SIZE) pax.push(["size", String(stored)]);
  if (entry.uid > MAX_ID) pax.push(["uid", String(entry.uid)]);
  if (entry.gid > MAX_ID) pax.push(["gid", String(entry.gid)]);
  if (entry.mtimeNsec !== 0 || entry.mtime < 0 || entry.mtime > MAX_SIZE) {
    pax.push(["mtime", paxTime(entry.mtime, entry.mtimeNsec)]);
  }
  for (const [name, value] of entry.xattrs ?? []) {
    pax.push([`SCHILY.xattr.${name}`, Buffer.from(value).toString("latin1")]);
  }
  const parts: Buffer[] = [];
  // GNU's long names are plain bytes; PAX paths would have to be UTF-8.
  if (entry.path.length > 100) {
    parts.push(...extended("././@LongLink", "L", Buffer.from(`${entry.path}\0`, "latin1")));
  }
  if (entry.link.length > 100) {
    parts.push(...extended("././@LongLink", "K", Buffer.from(`${entry.link}\0`, "latin1")));
  }
  if (pax.length > 0) {
    const text = pax.map(([key, value]) => record(key, value)).join("");
    parts.push(...extended("pax", "x", Buffer.from(text, "latin1")));
  }
  parts.push(block(entry.path, TYPES[entry.kind], entry, stored));
  return Buffer.concat(parts);
}

/** Two zero blocks: the end of an archive. */
export const END_OF_ARCHIVE: Buffer = Buffer.alloc(2 * RECORD);
