/** The words of the command line as bytes: Node.js makes U+FFFD of what is not UTF-8. */
import { isUtf8 } from "node:buffer";
import { readFileSync } from "node:fs";

/**
 * Bytes as text. A byte that is no part of UTF-8 becomes U+DC80 to U+DCFF, which JSON writes as an
 * escape; the guest's agent makes the byte of it again (protocol/README.md, section 4).
 */
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

/**
 * Words of this process as they were given.
 * @param words the last ones of process.argv, without the colon that bin/vmsan puts in front
 * @param line what the kernel has of them, each ended by NUL
 */
export function rawWords(
  words: readonly string[],
  line: Buffer = readFileSync("/proc/self/cmdline"),
): string[] {
  const all: Buffer[] = [];
  for (let at = 0; at < line.length;) {
    const end = line.indexOf(0, at);
    all.push(line.subarray(at, end < 0 ? line.length : end));
    at = end < 0 ? line.length : end + 1;
  }
  const last = all.slice(all.length - words.length);
  return words.map((word, i) => {
    const raw = last[i] ?? Buffer.alloc(0);
    if (raw.toString() === word) return textOfBytes(raw);
    return raw.toString() === `:${word}` ? textOfBytes(raw.subarray(1)) : word;
  });
}
