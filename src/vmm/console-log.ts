/**
 * Console logs with a bound: a guest that prints for ever must not fill the host's disk. The
 * VMM appends to the file; when it has grown too large its end is kept and the rest dropped.
 * While no daemon looks, nothing bounds it but the speed of the emulated serial port.
 */
import { open, truncate } from "node:fs/promises";
import { errnoOf } from "../model/errors.ts";

/** Bytes from which a log is cut. */
const maxBytes = 4 << 20;
/** Bytes of its end that are kept. */
const keptBytes = 512 << 10;
const lookEveryMs = 1000;

/** Cut a log that is larger than `max` to its last `kept` bytes. */
export async function cutLog(path: string, max = maxBytes, kept = keptBytes): Promise<void> {
  let tail: Buffer;
  try {
    const handle = await open(path, "r");
    try {
      const { size } = await handle.stat();
      if (size <= max) return;
      tail = Buffer.alloc(kept);
      await handle.read(tail, 0, kept, size - kept);
    } finally {
      await handle.close();
    }
    // The writer appends (O_APPEND), so that emptying the file moves it to the new end.
    await truncate(path, 0);
    const append = await open(path, "a");
    try {
      await append.write(`[${new Date().toISOString()}: older output dropped]\n`);
      await append.write(tail);
    } finally {
      await append.close();
    }
  } catch (error) {
    // The VM's directory has been removed meanwhile.
    if (errnoOf(error) !== "ENOENT") throw error;
  }
}

/**
 * Keep a log within its bound until `ended` resolves.
 * @param failed told when that is not possible; the log then grows
 */
export function boundLog(
  path: string,
  ended: Promise<unknown>,
  failed: (error: unknown) => void,
): void {
  const timer = setInterval(() => void cutLog(path).catch(failed), lookEveryMs);
  timer.unref();
  void ended.then(() => clearInterval(timer));
}
