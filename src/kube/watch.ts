/** A list of the API server, watched: goes on where it was when a connection ends, begins anew when it cannot. */
import type { Readable } from "node:stream";
import { StringDecoder } from "node:string_decoder";
import { setTimeout as sleep } from "node:timers/promises";
import { listSchema, watchEventSchema } from "../schema/kubernetes-list.ts";
import { validate } from "../schema/validate.ts";
import { isStatus } from "./api-server.ts";
import type { WatchStep } from "./api-server.ts";

/** Longest line, which is one object, in characters. */
const MAX_LINE = 16 << 20;
/** How long the server is to hold a watch, in seconds; not all nodes' at once. */
const HOLD_SECONDS = 240;
/** Pauses behind failures, in milliseconds. */
const PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 5_000;

/** The two requests that a watch is made of. */
export interface WatchCalls {
  /** The list, by path and query. */
  list(path: string): Promise<unknown>;
  /** Lines of JSON. */
  open(path: string): Promise<Readable>;
  /** Told once of an outage. */
  complain(error: unknown): void;
}

/** The server does not know any more what has happened since: the list has to be read again. */
class ExpiredError extends Error {}

/** Complete lines of a stream. */
async function* linesOf(reply: Readable): AsyncGenerator<string> {
  const decoder = new StringDecoder("utf8");
  let pending = "";
  for await (const chunk of reply as AsyncIterable<Buffer>) {
    const lines = (pending + decoder.write(chunk)).split("\n");
    pending = lines.pop() ?? "";
    if (pending.length > MAX_LINE) throw new Error("a line of the watch is too long");
    for (const line of lines) if (line !== "") yield line;
  }
}

function withQuery(path: string, query: Record<string, string>): string {
  return `${path}${path.includes("?") ? "&" : "?"}${new URLSearchParams(query).toString()}`;
}

/** One connection's steps. @param seen told how far it has come */
async function* steps(
  calls: WatchCalls,
  path: string,
  version: string,
  seen: (version: string) => void,
): AsyncGenerator<WatchStep> {
  const reply = await calls.open(
    withQuery(path, {
      watch: "true",
      allowWatchBookmarks: "true",
      resourceVersion: version,
      timeoutSeconds: String(Math.round(HOLD_SECONDS * (1 + Math.random()))),
    }),
  );
  try {
    for await (const line of linesOf(reply)) {
      const { type, object } = validate(
        watchEventSchema,
        JSON.parse(line),
        "line of a watch",
        "ERR_NODE_WATCH",
      );
      if (type === "ERROR") {
        if (object.code === 410) throw new ExpiredError();
        throw new Error(object.message ?? "the API server ended the watch");
      }
      if (type === "ADDED" || type === "MODIFIED") yield { kind: "set", object };
      else if (type === "DELETED") yield { kind: "gone", object };
      // Behind the object: what was not taken is told again.
      if (object.metadata?.resourceVersion !== undefined) seen(object.metadata.resourceVersion);
    }
  } finally {
    reply.destroy();
  }
}

/** All objects of a list and what becomes of them, until the signal. Never throws. */
export async function* watchList(
  calls: WatchCalls,
  path: string,
  signal: AbortSignal,
): AsyncGenerator<WatchStep> {
  let version: string | undefined;
  let failures = 0;
  while (!signal.aborted) {
    try {
      if (version === undefined) {
        const list = validate(listSchema, await calls.list(path), "list", "ERR_NODE_WATCH");
        version = list.metadata.resourceVersion ?? "0";
        yield { kind: "all", objects: list.items ?? [] };
      }
      yield* steps(calls, path, version, (next) => {
        version = next;
        failures = 0;
      });
      // Ended in order: the server holds none for ever.
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof ExpiredError || isStatus(error, 410)) version = undefined;
      else if (failures === 0) calls.complain(error);
      failures += 1;
    }
    // Also behind one that ended at once: a server that is being stopped takes no time to say so.
    const pause = Math.min(LONGEST_PAUSE_MS, PAUSE_MS * 2 ** Math.min(failures, 6));
    // AbortError: over.
    await sleep(pause, undefined, { signal }).catch(() => undefined);
  }
}
