/** Reading a log, also while it is written: entries, lines, the last lines. */
import { open } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { errnoOf } from "../../model/errors.ts";
import { segmentPath, segmentsOf } from "./container-log.ts";
import { HEADER, decodeHeader } from "./entry.ts";
import type { OutputNumber } from "../../agent/frames.ts";

const CHUNK = 1 << 20;

/** A piece of output. */
export interface LogPiece {
  stream: OutputNumber;
  timeNs: bigint;
  bytes: Buffer;
}

/** One line, or a part of a very long one. */
export interface LogLine extends LogPiece {
  /** It goes on where the one before of this output has stopped. */
  continued: boolean;
}

/** Longest that a line waits for its end, in bytes. */
const MAX_LINE = 16 << 10;

async function openSegment(dir: string, segment: number): Promise<FileHandle | undefined> {
  try {
    return await open(segmentPath(dir, segment), "r");
  } catch (error) {
    // The oldest go while a slow reader is at them.
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

/** Where to begin, and how to wait for more. */
export interface ReadOptions {
  /** Number of the first file; default the oldest. */
  first?: number;
  /** Number of the last one; default the newest. */
  last?: number;
  /** For one that is written meanwhile; absent: what is there now. */
  follow?: {
    /** As {@link ContainerLog.version}, taken before each look. */
    version: () => number;
    /** Asked at the end: resolves to true once there may be more, to false when there will be none. */
    more: (version: number) => Promise<boolean>;
  };
}

/** All pieces of a log, in the order in which they came. Their bytes hold until the next one is asked for. */
export async function* readPieces(
  dir: string,
  options: ReadOptions = {},
): AsyncGenerator<LogPiece> {
  const { first = 0, last: until = Infinity, follow } = options;
  let segment = (await segmentsOf(dir)).find((number) => number >= first) ?? 1;
  let file: FileHandle | undefined;
  let pending = Buffer.alloc(0);
  let position = 0;
  /** Whether there will be nothing more than what is there now. */
  let last = follow === undefined;
  if (segment > until) return;
  try {
    for (;;) {
      const version = follow?.version() ?? 0;
      file ??= await openSegment(dir, segment);
      const chunk = Buffer.allocUnsafe(CHUNK);
      const read = file === undefined ? 0 : (await file.read(chunk, 0, CHUNK, position)).bytesRead;
      if (read === 0) {
        const next = (await segmentsOf(dir)).find((number) => number > segment);
        if (next !== undefined) {
          // What came between the read and the look is in the old file still.
          const late = file === undefined ? 0 : (await file.stat()).size - position;
          if (late > 0) continue;
          await file?.close();
          file = undefined;
          if (next > until) return;
          segment = next;
          position = 0;
          pending = Buffer.alloc(0);
          continue;
        }
        if (last) return;
        if (follow === undefined || !(await follow.more(version))) last = true;
        continue;
      }
      position += read;
      const bytes =
        pending.length === 0
          ? chunk.subarray(0, read)
          : Buffer.concat([pending, chunk.subarray(0, read)]);
      let at = 0;
      while (at + HEADER <= bytes.length) {
        const header = decodeHeader(bytes, at);
        if (header === undefined) {
          // A damaged file: what is behind cannot be told apart.
          at = bytes.length;
          break;
        }
        const end = at + HEADER + header.length;
        if (end > bytes.length) break;
        if (header.kind !== "mark") {
          const stream = header.kind === "stdout" ? 1 : 2;
          yield { stream, timeNs: header.timeNs, bytes: bytes.subarray(at + HEADER, end) };
        }
        at = end;
      }
      pending = bytes.subarray(at);
    }
  } finally {
    await file?.close();
  }
}

/**
 * Pieces as lines; one that has no end yet comes when there is nothing more. Their bytes hold until the next one is
 * asked for.
 */
export async function* readLines(pieces: AsyncIterable<LogPiece>): AsyncGenerator<LogLine> {
  const parts: Record<OutputNumber, Buffer[]> = { 1: [], 2: [] };
  const sizes: Record<OutputNumber, number> = { 1: 0, 2: 0 };
  const continued: Record<OutputNumber, boolean> = { 1: false, 2: false };
  let lastNs = 0n;
  for await (const { stream, timeNs, bytes } of pieces) {
    lastNs = timeNs;
    const begun = parts[stream];
    for (let at = 0; at < bytes.length;) {
      const newline = bytes.indexOf(0x0a, at);
      const end = newline < 0 ? bytes.length : newline + 1;
      const part = bytes.subarray(at, end);
      at = end;
      if (newline < 0 && sizes[stream] + part.length < MAX_LINE) {
        begun.push(Buffer.from(part));
        sizes[stream] += part.length;
        continue;
      }
      const whole = begun.length === 0 ? part : Buffer.concat([...begun.splice(0), part]);
      sizes[stream] = 0;
      yield { stream, timeNs, bytes: whole, continued: continued[stream] };
      continued[stream] = newline < 0;
    }
  }
  for (const stream of [1, 2] as const) {
    if (sizes[stream] === 0) continue;
    const bytes = Buffer.concat(parts[stream]);
    yield { stream, timeNs: lastNs, bytes, continued: continued[stream] };
  }
}

/** The number of lines that end in one file of a log, of the outputs that count; `newest`: those without an end too. */
async function countLines(
  dir: string,
  segment: number,
  streams: readonly OutputNumber[],
  newest: boolean,
): Promise<number> {
  let lines = 0;
  const open: Record<OutputNumber, boolean> = { 1: false, 2: false };
  for await (const { stream, bytes } of readPieces(dir, { first: segment, last: segment })) {
    if (!streams.includes(stream) || bytes.length === 0) continue;
    for (let at = bytes.indexOf(0x0a); at >= 0; at = bytes.indexOf(0x0a, at + 1)) lines += 1;
    open[stream] = bytes.at(-1) !== 0x0a;
  }
  return lines + (newest ? Number(open[1]) + Number(open[2]) : 0);
}

/**
 * Where the last so many lines begin: the file to read from, and how many lines of it come before them.
 * Of a log that is written meanwhile, those that were the last ones.
 */
export async function findTail(
  dir: string,
  streams: readonly OutputNumber[],
  tail: number,
): Promise<{ first: number; skip: number }> {
  const segments = await segmentsOf(dir);
  let total = 0;
  let first = segments[0] ?? 0;
  let enough = false;
  for (const segment of segments.toReversed()) {
    total += await countLines(dir, segment, streams, segment === segments.at(-1));
    first = segment;
    // One file more than is needed: lines that go over its end are whole then.
    if (enough) break;
    enough = total > tail;
  }
  return { first, skip: Math.max(0, total - tail) };
}
