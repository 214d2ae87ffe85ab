/** Lines of a log that somebody wants: of which outputs, from when, with the time before each. */
import type { OutputNumber } from "../../agent/frames.ts";
import { findTail, readLines, readPieces } from "./reader.ts";
import type { LogPiece, ReadOptions } from "./reader.ts";

/** RFC 3339 with nine digits, as the engine writes it before a line. */
export function stamp(timeNs: bigint): string {
  const date = new Date(Number(timeNs / 1_000_000n)).toISOString().slice(0, 19);
  return `${date}.${String(timeNs % 1_000_000_000n).padStart(9, "0")}Z`;
}

/** Which lines of a log somebody wants, and how. */
export interface LogWish {
  /** Of these outputs. */
  streams: OutputNumber[];
  /** A line begins with the moment at which it came. */
  timestamps: boolean;
  /** The last so many lines; undefined: all. */
  tail: number | undefined;
  sinceNs: bigint | undefined;
  untilNs: bigint | undefined;
}

/** Pieces as lines, where lines count. @param skip so many of the first ones are not wanted */
async function* chosenLines(
  pieces: AsyncIterable<LogPiece>,
  wish: LogWish,
  skip: number,
): AsyncGenerator<LogPiece> {
  const { streams, timestamps, sinceNs, untilNs } = wish;
  let skipped = 0;
  // Lines that came together have one time.
  let time = -1n;
  let prefix = Buffer.alloc(0);
  for await (const { stream, timeNs, bytes, continued } of readLines(pieces)) {
    if (!streams.includes(stream)) continue;
    if (untilNs !== undefined && timeNs > untilNs) return;
    if (skipped < skip) {
      if (!continued) skipped += 1;
      continue;
    }
    if (sinceNs !== undefined && timeNs < sinceNs) continue;
    if (!timestamps || continued) {
      yield { stream, timeNs, bytes };
      continue;
    }
    if (time !== timeNs) {
      time = timeNs;
      prefix = Buffer.from(`${stamp(timeNs)} `);
    }
    yield { stream, timeNs, bytes: Buffer.concat([prefix, bytes]) };
  }
}

/**
 * What is wanted of a log, in the order in which it came. Its bytes hold until the next piece is asked for.
 * @param dir the log's own
 * @param reading how to wait for more; absent: what is there now
 */
export async function* readWanted(
  dir: string,
  wish: LogWish,
  reading: Pick<ReadOptions, "follow"> = {},
): AsyncGenerator<LogPiece> {
  const { streams, timestamps, tail, sinceNs, untilNs } = wish;
  const begin = tail === undefined ? { first: 0, skip: 0 } : await findTail(dir, streams, tail);
  const pieces = readPieces(dir, { ...reading, first: begin.first });
  if (tail !== undefined || timestamps || sinceNs !== undefined || untilNs !== undefined) {
    yield* chosenLines(pieces, wish, begin.skip);
    return;
  }
  for await (const piece of pieces) if (streams.includes(piece.stream)) yield piece;
}
