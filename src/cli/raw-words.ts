/** The words of the command line as bytes: Node.js makes U+FFFD of what is not UTF-8. */
import { readFileSync } from "node:fs";
import { textOfBytes } from "../util/byte-text.ts";

/** What the kernel keeps of a process: strings that end in NUL. */
export function stringsOf(data: Buffer): Buffer[] {
  const all: Buffer[] = [];
  for (let at = 0; at < data.length;) {
    const end = data.indexOf(0, at);
    all.push(data.subarray(at, end < 0 ? data.length : end));
    at = end < 0 ? data.length : end + 1;
  }
  return all;
}

/**
 * Words of this process as they were given (util/byte-text.ts).
 * @param words the last ones of process.argv, without the colon that bin/vmsan puts in front
 * @param line what the kernel has of them, each ended by NUL
 */
export function rawWords(
  words: readonly string[],
  line: Buffer = readFileSync("/proc/self/cmdline"),
): string[] {
  const all = stringsOf(line);
  const last = all.slice(all.length - words.length);
  return words.map((word, i) => {
    const raw = last[i] ?? Buffer.alloc(0);
    if (raw.toString() === word) return textOfBytes(raw);
    return raw.toString() === `:${word}` ? textOfBytes(raw.subarray(1)) : word;
  });
}
