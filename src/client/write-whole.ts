/** A download as a file: there when it is whole, else not at all. */
import { createWriteStream } from "node:fs";
import { rename, rm } from "node:fs/promises";
import { pipeline } from "node:stream/promises";
import { absolutePath, fsPath } from "../util/byte-text.ts";

/**
 * Write a stream to a file, which is replaced when all has come.
 * @param mode permission bits, as limited by the umask
 */
export async function writeWhole(
  from: AsyncIterable<Buffer>,
  to: string,
  mode = 0o666,
): Promise<void> {
  // Loaded here, because it takes node:crypto, which takes 4 ms.
  const { temporarySibling } = await import("../util/atomic.ts");
  const path = absolutePath(to);
  const aside = fsPath(temporarySibling(path));
  try {
    await pipeline(from, createWriteStream(aside, { flags: "wx", mode, flush: true }));
    await rename(aside, fsPath(path));
  } catch (error) {
    await rm(aside, { force: true });
    throw error;
  }
}
