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
 * The same for a file whose writer does not append but goes on at its own place in it
 * (Firecracker's log and metrics): what is dropped becomes a hole, what is kept stays where it is.
 */
export async function cutPlaced(path: string, max = maxBytes, kept = keptBytes): Promise<void> {
  try {
    const handle = await open(path, "r+");
    try {
      const { size, blocks } = await handle.stat();
      // The size grows for ever, by the holes: what counts is what the file occupies.
      if (blocks * 512 <= max) return;
      const tail = Buffer.alloc(Math.min(kept, size));
      const from = size - tail.length;
      const { bytesRead } = await handle.read(tail, 0, tail.length, from);
      await handle.truncate(0);
      await handle.write(tail, 0, bytesRead, from);
    } finally {
      await handle.close();
    }
  } catch (error) {
    // The VM's directory has been removed meanwhile.
    if (errnoOf(error) !== "ENOENT") throw error;
  }
}

/**
 * Keep a log within its bound until `ended` resolves.
 * @param failed told when that is not possible; the log then grows
 * @param cut {@link cutLog}, or {@link cutPlaced} for a writer that does not append
 */
export function boundLog(
  path: string,
  ended: Promise<unknown>,
  failed: (error: unknown) => void,
  cut: (path: string) => Promise<void> = cutLog,
): void {
  const timer = setInterval(() => void cut(path).catch(failed), lookEveryMs);
  timer.unref();
  void ended.then(() => clearInterval(timer));
}
