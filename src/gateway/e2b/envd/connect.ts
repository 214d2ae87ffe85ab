/** The Connect protocol (connectrpc.com, version 1) as envd's clients use it: JSON, unary and server streams. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { collect } from "../../../util/flow/collect.ts";
import { E2bError, asE2bError } from "../errors.ts";

/** Most bytes of a request. */
const MAX_REQUEST = 16 << 20;
/** Shortest time between signs of life that a client may ask for, in seconds. */
const MIN_PACE_S = 1;
/** Flag of the last frame of a stream. */
const END_OF_STREAM = 2;

/** A request's body, bounded. @throws invalid_argument */
export async function readBody(request: IncomingMessage, limit = MAX_REQUEST): Promise<Buffer> {
  const why = `the request is longer than ${limit} bytes`;
  return await collect(request, limit, () => new E2bError("resource_exhausted", why, 413));
}

/** JSON of a body as an object; an empty body is `{}`. @throws invalid_argument */
export function parseObject(bytes: Buffer): Record<string, unknown> {
  if (bytes.length === 0) return {};
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString("utf8"));
  } catch {
    // Said below, in the protocol's own terms.
    value = undefined;
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) {
    return value as Record<string, unknown>;
  }
  throw new E2bError("invalid_argument", "the request is not a JSON object");
}

/** Answer a unary call. */
export function sendUnary(response: ServerResponse, value: object): void {
  response.writeHead(200, { "content-type": "application/json" });
  response.end(JSON.stringify(value));
}

/**
 * Answer a call that failed, and is no stream.
 * @param plain of plain HTTP, where the code is the status; else one of the protocol's words
 */
export function sendError(response: ServerResponse, error: unknown, plain: boolean): void {
  const known = asE2bError(error);
  if (response.headersSent) {
    response.destroy();
    return;
  }
  response.writeHead(known.status, { "content-type": "application/json" });
  response.end(JSON.stringify({ code: plain ? known.status : known.code, message: known.message }));
}

/** The messages of a stream's request, as they come. @throws invalid_argument for other bytes */
export async function* requestMessages(
  request: IncomingMessage,
): AsyncGenerator<Record<string, unknown>> {
  let parts: Buffer[] = [];
  let size = 0;
  /** Bytes that are needed before there is anything to look at: the parts are joined then, and not at each that comes. */
  let needed = 5;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    parts.push(chunk);
    size += chunk.length;
    if (size < needed) continue;
    let pending = Buffer.concat(parts);
    needed = 5;
    while (pending.length >= 5) {
      const length = pending.readUInt32BE(1);
      if (pending[0] !== 0 && pending[0] !== END_OF_STREAM) {
        throw new E2bError("unimplemented", "compressed messages are not taken");
      }
      if (length > MAX_REQUEST) throw new E2bError("resource_exhausted", "a message is too long");
      if (pending.length < 5 + length) {
        needed = 5 + length;
        break;
      }
      const body = pending.subarray(5, 5 + length);
      pending = pending.subarray(5 + length);
      yield parseObject(body);
    }
    parts = [pending];
    size = pending.length;
  }
  if (size > 0) throw new E2bError("invalid_argument", "the last message is cut short");
}

/** The replies of one stream. */
export class ReplyStream {
  /** Aborted when the client goes away or its deadline has passed. */
  readonly signal: AbortSignal;
  private readonly response: ServerResponse;
  private readonly gone = new AbortController();
  private readonly deadline: NodeJS.Timeout | undefined;
  private readonly keepalive: NodeJS.Timeout | undefined;

  /** @param keepalive what is sent at the pace that the client asks for */
  constructor(request: IncomingMessage, response: ServerResponse, keepalive: object) {
    this.response = response;
    this.signal = this.gone.signal;
    response.once("close", () => this.gone.abort(new E2bError("canceled", "the client has gone")));
    const timeout = Number(request.headers["connect-timeout-ms"]);
    if (timeout > 0) {
      this.deadline = setTimeout(
        () => this.gone.abort(new E2bError("deadline_exceeded", "the time limit has passed")),
        Math.min(timeout, 2 ** 31 - 1),
      );
    }
    const pace = Number(request.headers["keepalive-ping-interval"]);
    if (pace > 0) {
      // One that does not read has nothing kept for it.
      const ping = (): void => void (response.writableNeedDrain || this.write(keepalive));
      this.keepalive = setInterval(ping, Math.min(Math.max(pace, MIN_PACE_S), 3600) * 1000);
    }
  }

  private write(value: object, flag = 0): boolean {
    const body = Buffer.from(JSON.stringify(value));
    const frame = Buffer.allocUnsafe(5 + body.length);
    frame[0] = flag;
    frame.writeUInt32BE(body.length, 1);
    body.copy(frame, 5);
    if (!this.response.headersSent) {
      this.response.writeHead(200, { "content-type": "application/connect+json" });
    }
    return this.response.destroyed || this.response.write(frame);
  }

  /** Send a message. @returns resolves when the client takes more */
  async send(value: object): Promise<void> {
    if (this.write(value) || this.signal.aborted) return;
    await new Promise<void>((resolve) => {
      const go = (): void => {
        this.response.off("drain", go);
        this.response.off("close", go);
        resolve();
      };
      this.response.on("drain", go);
      this.response.on("close", go);
    });
  }

  /**
   * Cut the connection: a client then asks whether its sandbox is alive, and says why it ended. By a
   * reset: the Python client takes a connection that merely ends for a reply that is not HTTP.
   * @returns false when nothing has been sent yet, and another answer can be given
   */
  cut(): boolean {
    clearTimeout(this.deadline);
    clearInterval(this.keepalive);
    if (!this.response.headersSent) return false;
    this.response.socket?.resetAndDestroy();
    this.response.destroy();
    return true;
  }

  /** End the stream, with an error if there was one. */
  end(error?: unknown): void {
    clearTimeout(this.deadline);
    clearInterval(this.keepalive);
    const known = error === undefined ? undefined : asE2bError(error);
    const trailer =
      known === undefined ? {} : { error: { code: known.code, message: known.message } };
    this.write(trailer, END_OF_STREAM);
    this.response.end();
  }
}
