/**
 * Bytes that are mostly text (arguments, variables, file names) as strings. A byte that is no part
 * of UTF-8 is U+DC80 to U+DCFF, half a pair of surrogates: JSON writes it as an escape, of which the
 * other side makes the byte again (protocol/README.md, section 4). Node.js would put U+FFFD there.
 */
import { isUtf8 } from "node:buffer";
import { readlinkSync } from "node:fs";
import { resolve } from "node:path";

/** A character that stands for a byte: with the flag `u`, whole pairs do not match. */
const BYTE = /[\uDC80-\uDCFF]/u;

/** Bytes as text that {@link bytesOfText} reads back. */
export function textOfBytes(bytes: Buffer): string {
  if (isUtf8(bytes)) return bytes.toString();
  let text = "";
  for (let at = 0; at < bytes.length;) {
    const length = [1, 2, 3, 4].find(
      (n) => at + n <= bytes.length && isUtf8(bytes.subarray(at, at + n)),
    );
    text +=
      length === undefined
        ? String.fromCharCode(0xdc00 + (bytes[at] ?? 0))
        : bytes.toString("utf8", at, at + length);
    at += length ?? 1;
  }
  return text;
}

/** Whether text stands for bytes that UTF-8 cannot say. */
export function holdsBytes(text: string): boolean {
  return BYTE.test(text);
}

/** The bytes that text stands for. */
export function bytesOfText(text: string): Buffer {
  if (!holdsBytes(text)) return Buffer.from(text);
  return Buffer.concat(
    text
      .split(/([\uDC80-\uDCFF])/u)
      .map((part, i) =>
        i % 2 === 1 ? Buffer.from([part.charCodeAt(0) & 0xff]) : Buffer.from(part),
      ),
  );
}

/** A path as node:fs takes it: bytes where text would not name the file. */
export function fsPath(path: string): string | Buffer {
  return holdsBytes(path) ? bytesOfText(path) : path;
}

/** A path of this host made absolute, from the working directory, whatever its name. */
export function absolutePath(path: string): string {
  if (path.startsWith("/")) return resolve(path);
  const here = process.cwd();
  return here.includes("\uFFFD")
    ? resolve(textOfBytes(readlinkSync("/proc/self/cwd", { encoding: "buffer" })), path)
    : resolve(path);
}

/** Text as a part of a URL, percent-encoded: bytes as they are. */
export function encodeText(text: string): string {
  return text.replaceAll(/[\uDC80-\uDCFF]|[^\uDC80-\uDCFF]+/gu, (part) =>
    holdsBytes(part)
      ? `%${(part.charCodeAt(0) & 0xff).toString(16).toUpperCase()}`
      : encodeURIComponent(part.toWellFormed()),
  );
}

/** Reverses {@link encodeText}; what is not percent-encoded stays as it is. */
export function decodeText(encoded: string): string {
  const parts = encoded.split(/%([0-9a-f]{2})/i);
  return textOfBytes(
    Buffer.concat(
      parts.map((part, i) =>
        i % 2 === 1 ? Buffer.from([Number.parseInt(part, 16)]) : Buffer.from(part),
      ),
    ),
  );
}
