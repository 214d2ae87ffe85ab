/**
 * http/: what servers of HTTP APIs share. Takes requests and results, gives JSON bodies that are
 * bounded, errors with a fitting status, and lines of progress.
 */
import type { Context } from "hono";
import { stream } from "hono/streaming";
import type { ReplyLine } from "../model/api.ts";
import { VmsanError, asVmsanError } from "../model/errors.ts";
import type { ProgressSink } from "../model/progress.ts";
import { collect } from "../util/flow/collect.ts";
import { timingOfCall } from "../util/flow/phases.ts";

/** Most bytes of a JSON request body. */
const MAX_BODY = 4 << 20;

/** Longest that a line of progress waits for others, in milliseconds: less than eyes notice. */
const PROGRESS_MS = 20;

/** Of the gateway's own refusals; see gateway/access/. */
const GATEWAY_STATUS: Record<string, 401 | 403 | 413 | 421 | 429 | 502> = {
  ERR_GATEWAY_UNAUTHORIZED: 401,
  ERR_GATEWAY_FORBIDDEN: 403,
  ERR_GATEWAY_QUOTA: 403,
  ERR_GATEWAY_TOO_LARGE: 413,
  ERR_GATEWAY_HOST: 421,
  ERR_GATEWAY_RATE: 429,
  ERR_GATEWAY_UPSTREAM: 502,
};

/** What {@link statusOf} gives. */
export type ErrorStatus = 400 | 401 | 403 | 404 | 409 | 413 | 421 | 429 | 500 | 502;

/** The HTTP status for an error code. */
export function statusOf(code: string): ErrorStatus {
  const own = GATEWAY_STATUS[code];
  if (own !== undefined) return own;
  if (/^ERR_(?:VALIDATION_.*|CLUSTER_UNSUPPORTED|NODE_REQUEST)$/.test(code)) return 400;
  // The guest could not do what was asked of it, with the words that were sent.
  if (/^ERR_AGENT_(FILE|USER|WORKDIR|NOT_EXECUTABLE|ARGUMENTS|REQUEST|DIAL|LISTEN)$/.test(code))
    return 400;
  if (/^ERR_PRIVATE_NETWORK_(SUBNET|ADDRESS)$/.test(code)) return 400;
  if (code.endsWith("_NOT_FOUND")) return 404;
  if (/_(NOT_STOPPED|NOT_RUNNING|NAME_TAKEN|IN_USE|MEMBER|DAEMON_VERSION)$/.test(code)) return 409;
  return 500;
}

/** An error as a reply. */
export function errorReply(c: Context, error: unknown): Response {
  const known = asVmsanError(error, `${c.req.method} ${c.req.path} failed`);
  return c.json({ error: known.toJSON() }, statusOf(known.code));
}

/** The request's JSON body; an empty one is `{}`. @throws ERR_VALIDATION_FLAGS */
export async function jsonBody(c: Context): Promise<unknown> {
  const { body } = c.req.raw;
  if (body === null) return {};
  const tooLong = (): Error => badBody(`It is longer than ${MAX_BODY} bytes.`);
  const bytes = await collect(body, MAX_BODY, tooLong);
  if (bytes.length === 0) return {};
  try {
    return JSON.parse(bytes.toString("utf8"));
  } catch (error) {
    throw badBody(asVmsanError(error, "").why ?? "");
  }
}

function badBody(why: string): VmsanError {
  return new VmsanError({
    code: "ERR_VALIDATION_FLAGS",
    message: "The request's body is not usable JSON",
    why,
    fix: "Send a JSON object; see docs/api.md.",
  });
}

/** What a streamed operation is given. */
export interface StreamedWork<T> {
  /** Aborted when the client goes away. */
  signal: AbortSignal;
  progress: ProgressSink;
  /** Send a line that is neither progress nor the end. */
  send(line: ReplyLine<T>): void;
  /** Resolves when the client has gone. */
  gone: Promise<void>;
}

/**
 * Run long work and send its progress as lines, then its result or its error.
 * The client's leaving aborts it.
 * @param afterwards called after the result was sent; the reply stays open until it resolves
 */
export function streamedReply<T>(
  c: Context,
  body: (work: StreamedWork<T>) => Promise<T>,
  afterwards?: (gone: Promise<void>) => Promise<void>,
): Response {
  c.header("content-type", "application/x-ndjson");
  return stream(c, async (out) => {
    const abort = new AbortController();
    const gone = new Promise<void>((resolve) => {
      out.onAbort(() => {
        abort.abort(new VmsanError({ code: "ERR_CLIENT_GONE", message: "The client went away" }));
        resolve();
      });
    });
    let last: Promise<unknown> = Promise.resolve();
    let pending = "";
    const flush = (): void => {
      if (pending === "") return;
      // Failing writes mean that the client is gone; onAbort tells.
      last = out.write(pending).catch(() => undefined);
      pending = "";
    };
    const send = (line: ReplyLine<T>): void => {
      // Progress travels together: a write costs both ends more than thirty lines do.
      if (pending === "") setTimeout(flush, PROGRESS_MS);
      pending += `${JSON.stringify(line)}\n`;
      if (line.event !== "progress") flush();
    };
    const sendTiming = (): void => {
      const timing = timingOfCall();
      if (timing !== undefined) send({ event: "timing", timing });
    };
    try {
      const result = await body({
        signal: abort.signal,
        progress: (progress) => send({ event: "progress", progress }),
        send,
        gone,
      });
      sendTiming();
      send({ event: "result", result });
      await last;
      await afterwards?.(gone);
    } catch (error) {
      sendTiming();
      send({ event: "error", error: asVmsanError(error, "The request failed").toJSON() });
      await last;
    }
  });
}
