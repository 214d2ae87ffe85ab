/** Bytes that the daemon sends, asked for again when it dies in the middle. */
import { setTimeout as sleep } from "node:timers/promises";
import { Readable } from "node:stream";
import { crc32 } from "node:zlib";
import { ATTEMPTS, daemonLost } from "./lost.ts";
import { isConnectionLost } from "./transport.ts";

const PAUSE_MS = 50;

/** Where a source of bytes is asked for again. */
export type Open = (from: number) => Promise<Readable>;

/**
 * All bytes of a source that can be asked for from any offset on.
 * @param open asks for the bytes from an offset on
 */
export async function* resumed(open: Open): AsyncGenerator<Buffer> {
  let passed = 0;
  for (let attempt = 1; ; attempt += 1) {
    const before = passed;
    try {
      for await (const chunk of (await open(passed)) as AsyncIterable<Buffer>) {
        passed += chunk.length;
        yield chunk;
      }
      return;
    } catch (error) {
      if (!isConnectionLost(error)) throw error;
      // Only daemons that die without a byte between them are given up.
      if (passed > before) attempt = 1;
      if (attempt === ATTEMPTS) throw cut(error);
    }
    await sleep(PAUSE_MS * attempt);
  }
}

/**
 * For a source that always begins at its start: what was passed on already is left out of a
 * repetition, and compared with it.
 */
export function fromStart(open: () => Promise<Readable>): Open {
  let passed = 0;
  let sum = 0;
  async function* tail(source: Readable, from: number): AsyncGenerator<Buffer> {
    let seen = 0;
    let same = 0;
    for await (let chunk of source as AsyncIterable<Buffer>) {
      if (seen < from) {
        const known = chunk.subarray(0, from - seen);
        same = crc32(known, same);
        seen += known.length;
        if (seen === from && same !== sum) throw cut(new Error("other bytes came this time"));
        chunk = chunk.subarray(known.length);
        if (chunk.length === 0) continue;
      }
      seen += chunk.length;
      passed += chunk.length;
      sum = crc32(chunk, sum);
      yield chunk;
    }
    if (passed < from || seen < from) throw cut(new Error("fewer bytes came this time"));
  }
  return async (from) => Readable.from(tail(await open(), from), { objectMode: false });
}

/** The error of bytes that could not be had whole. */
function cut(cause: unknown): Error {
  return daemonLost(
    "it had sent all",
    "What was written is not complete.",
    "Run the command again; VMSAN_DIR/run/daemon.log says what the daemon did.",
    cause,
  );
}
