/** `GET /containers/ID/logs`. */
import type { Container } from "../containers/container.ts";
import { DockerError } from "../errors.ts";
import { parseMoment } from "../events.ts";
import { FrameBatch } from "../http/frames.ts";
import type { StreamNumber } from "../http/frames.ts";
import type { Call } from "../http/route.ts";
import { beginStream } from "../http/wire.ts";
import type { ContainerLog } from "./container-log.ts";
import { findTail, readLines, readPieces } from "./reader.ts";
import type { LogPiece, ReadOptions } from "./reader.ts";

/** RFC 3339 with nine digits, as the engine writes it before a line. */
export function stamp(timeNs: bigint): string {
  const date = new Date(Number(timeNs / 1_000_000n)).toISOString().slice(0, 19);
  return `${date}.${String(timeNs % 1_000_000_000n).padStart(9, "0")}Z`;
}

/** What a client wants of a log. */
interface Wish {
  streams: StreamNumber[];
  timestamps: boolean;
  /** The last so many lines; undefined: all. */
  tail: number | undefined;
  sinceNs: bigint | undefined;
  untilNs: bigint | undefined;
}

const toNs = (seconds: number | undefined): bigint | undefined =>
  seconds === undefined ? undefined : BigInt(Math.round(seconds * 1e6)) * 1000n;

/** @throws 400 */
function wishOf({ query }: Call): Wish {
  const streams: StreamNumber[] = [];
  if (query.flag("stdout")) streams.push(1);
  if (query.flag("stderr")) streams.push(2);
  if (streams.length === 0) {
    throw new DockerError(400, "Bad parameters: you must choose at least one stream");
  }
  const tail = query.number("tail");
  return {
    streams,
    timestamps: query.flag("timestamps"),
    tail: tail === undefined || tail < 0 ? undefined : tail,
    sinceNs: toNs(parseMoment(query.text("since"))),
    untilNs: toNs(parseMoment(query.text("until"))),
  };
}

/** How a reader of a container's log waits for more. */
function followOf(container: Container, log: ContainerLog, gone: Promise<void>): ReadOptions {
  return {
    follow: {
      version: () => log.version,
      more: async (version) => {
        const { status } = container.record.state;
        if (container.removed || (!container.active && status !== "created")) return false;
        await Promise.race([log.changed(version), gone]);
        return true;
      },
    },
  };
}

/** Pieces as lines, where lines count. */
async function* chosenLines(
  pieces: AsyncIterable<LogPiece>,
  wish: Wish,
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

/** Send a container's log, and with `follow` what follows until it ends. */
export async function serveLogs(call: Call, container: Container): Promise<void> {
  const { response, query } = call;
  const { log } = container;
  if (log === undefined) {
    throw new DockerError(501, "configured logging driver does not support reading");
  }
  const wish = wishOf(call);
  const { Tty: tty } = container.record.config;
  beginStream(response, `application/vnd.docker.${tty ? "raw" : "multiplexed"}-stream`);
  let left = false;
  const gone = new Promise<void>((resolve) =>
    response.once("close", () => {
      left = true;
      resolve();
    }),
  );
  const batch = new FrameBatch(response, tty);
  const reading = query.flag("follow") ? followOf(container, log, gone) : {};
  if (reading.follow !== undefined) {
    const { more } = reading.follow;
    reading.follow.more = async (version) => {
      await batch.flush();
      return !left && (await more(version)) && !left;
    };
  }
  const all =
    wish.tail === undefined &&
    !wish.timestamps &&
    wish.sinceNs === undefined &&
    wish.untilNs === undefined;
  const { tail } = wish;
  const begin =
    tail === undefined ? { first: 0, skip: 0 } : await findTail(log.dir, wish.streams, tail);
  const pieces = readPieces(log.dir, { ...reading, first: begin.first });
  for await (const { stream, bytes } of all ? pieces : chosenLines(pieces, wish, begin.skip)) {
    if (left) break;
    if (wish.streams.includes(stream) && !(await batch.add(stream, bytes))) break;
  }
  await batch.flush();
  response.end();
}
