/** A file's bytes as a stream, going on as more is written. */
import { createReadStream, watch } from "node:fs";
import { open } from "node:fs/promises";
import { Readable } from "node:stream";
import { errnoOf } from "../model/errors.ts";

/** The file as it is now, from an offset on; empty when there is none. */
export async function readWhole(path: string, from = 0): Promise<Readable> {
  try {
    const handle = await open(path, "r");
    const { size } = await handle.stat();
    // Only what is there now: a guest that prints for ever must not keep a reader.
    if (size > from) return handle.createReadStream({ start: from, end: size - 1 });
    await handle.close();
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
  }
  return Readable.from([]);
}

/**
 * The file from an offset on, and what is appended to it until the signal aborts. A file that is replaced or
 * shortened is read from its start again.
 */
export function followFile(path: string, signal: AbortSignal, from = 0): Readable {
  async function* chunks(): AsyncGenerator<Buffer> {
    let offset = from;
    let wake = (): void => undefined;
    const watcher = watch(path, () => wake());
    signal.addEventListener("abort", () => wake(), { once: true });
    try {
      while (!signal.aborted) {
        const changed = new Promise<void>((resolve) => (wake = resolve));
        const handle = await open(path, "r");
        try {
          const { size } = await handle.stat();
          if (size < offset) offset = 0;
          if (size > offset) {
            const part = createReadStream(path, { start: offset, end: size - 1 });
            for await (const chunk of part) yield chunk as Buffer;
            offset = size;
            continue;
          }
        } finally {
          await handle.close();
        }
        await changed;
      }
    } finally {
      watcher.close();
    }
  }
  return Readable.from(chunks(), { objectMode: false });
}
