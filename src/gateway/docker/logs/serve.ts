/** `GET /containers/ID/logs`. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Container } from "../containers/container.ts";
import { DockerError } from "../errors.ts";
import { FrameBatch } from "../http/frames.ts";
import type { Cut } from "../http/frames.ts";
import { parseMoment } from "../http/moments.ts";
import type { OutputNumber } from "../../../agent/frames.ts";
import type { Call } from "../http/route.ts";
import { beginStream } from "../http/wire.ts";
import type { ContainerLog } from "../../../containers/logs/container-log.ts";
import { readWanted } from "../../../containers/logs/lines.ts";
import type { LogWish } from "../../../containers/logs/lines.ts";
import type { ReadOptions } from "../../../containers/logs/reader.ts";

const toNs = (seconds: number | undefined): bigint | undefined =>
  seconds === undefined ? undefined : BigInt(Math.round(seconds * 1e6)) * 1000n;

/** @throws 400 */
function wishOf({ query }: Call): LogWish {
  const streams: OutputNumber[] = [];
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

/**
 * Clients that join pieces, by how they name themselves: Docker's command line and compose. The former writes each
 * piece by itself: short lines, each in its own, would take it ten times as long.
 */
const JOINING = /^(?:Docker-Client|compose)\//;

/** How the pieces are cut that a client gets. */
function cutFor({ request }: Call, tty: boolean | undefined): Cut {
  if (tty === true) return "raw";
  return JOINING.test(request.headers["user-agent"] ?? "") ? "lines" : "line";
}

/** How a reader of a container's log waits for more. */
function followOf(
  container: Container,
  log: ContainerLog,
  gone: Promise<void>,
): Pick<ReadOptions, "follow"> {
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

/** How young a container is that may yet print its first words, and how long a look waits for them, in milliseconds. */
const YOUNG_MS = 2000;
const FIRST_MS = 1000;

/**
 * Wait for the first words of a young container that has printed nothing yet: clients start one and look at once, and a guest's program takes
 * longer to its first line than a process of the host, which has printed it by then.
 * @param version of the log before a look
 * @returns whether another look may find some
 */
async function firstWords(
  container: Container,
  log: ContainerLog,
  version: number,
  gone: Promise<void>,
): Promise<boolean> {
  const age = Date.now() - Date.parse(container.record.state.startedAt);
  if (!container.running || age > YOUNG_MS) return log.version !== version;
  const limit = sleep(FIRST_MS, undefined, { ref: false });
  await Promise.race([log.changed(version), container.nextExit(), gone, limit]);
  return true;
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
  const batch = new FrameBatch(response, cutFor(call, tty));
  const reading = query.flag("follow") ? followOf(container, log, gone) : {};
  if (reading.follow !== undefined) {
    const { more } = reading.follow;
    reading.follow.more = async (version) => {
      await batch.flush();
      return !left && (await more(version)) && !left;
    };
  }
  const send = async (): Promise<boolean> => {
    let any = false;
    for await (const { stream, bytes } of readWanted(log.dir, wish, reading)) {
      any = true;
      if (left || !(await batch.add(stream, bytes))) break;
    }
    return any;
  };
  const { version } = log;
  if (!(await send()) && reading.follow === undefined) {
    if (await firstWords(container, log, version, gone)) await send();
  }
  await batch.end();
  response.end();
}
