/**
 * agent/: speaks to the agent in a guest. Takes byte streams (whoever opened them), gives
 * commands, shells, files and ports that survive broken connections.
 *
 * channel.ts: one HTTP/2 session at a time over a stream, made again when it breaks.
 */
import { connect as http2Connect } from "node:http2";
import type { ClientHttp2Session, ClientHttp2Stream, OutgoingHttpHeaders } from "node:http2";
import type { Duplex } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { VmsanError, messageOf } from "../model/errors.ts";
import { abortable } from "../util/flow/abortable.ts";
import type { ConfigReply, GuestConfig, Hello } from "./config.ts";
import { parseConfigReply, parseHello } from "./config.ts";
import { handshake, isToken } from "./handshake.ts";
import { isFatal, longestReply, parseReply, replyError, tooLongReply } from "./transport.ts";
import type { GuestTransport, RequestOptions } from "./transport.ts";

/** Version of protocol/README.md that this end speaks. */
const PROTOCOL_VERSION = 1;

const STREAM_WINDOW = 4 << 20;
const CONNECTION_WINDOW = 8 << 20;
const MAX_FRAME = 256 << 10;
/** How long one RESET may stay without echo; then the stream is opened anew. */
const ECHO_TIMEOUT_MS = 20_000;
const BACKOFF_MAX_MS = 1000;
/** How long a call is tried again while the agent cannot be reached. */
const RETRY_MS = 30_000;

/** What a channel needs. */
export interface AgentChannelOptions {
  /** Opens one byte stream to the agent; may wait until there is something to connect to. */
  open: (signal: AbortSignal) => Promise<Duplex>;
  /** The VM's token, 32 hex digits. */
  token: string;
  /** Build of this vmsan, told to the agent. */
  build: string;
  /** Called with each new session's hello. */
  onSession?: (hello: Hello) => void;
  /** Receives one line for each broken connection. */
  log?: (line: string) => void;
}

/** How long to wait for an agent. */
export interface ReadyOptions {
  signal?: AbortSignal;
  /** Milliseconds; default: as long as it takes. */
  timeoutMs?: number;
}

interface Session {
  http2: ClientHttp2Session;
  hello: Hello;
}

/** An error that says that the agent cannot be reached. */
function unreachable(cause: unknown): VmsanError {
  return new VmsanError(
    {
      code: "ERR_AGENT_UNREACHABLE",
      message: "Cannot reach the guest's agent",
      why: messageOf(cause),
      fix: "Look at the VM with `vmsan list` and at its console with `vmsan logs ID`.",
    },
    cause,
  );
}

/** A connection to an agent that is made when it is needed and again when it breaks. */
export class AgentChannel implements GuestTransport {
  private readonly options: AgentChannelOptions;
  private token: Buffer;
  private session: Session | undefined;
  private connecting: Promise<Session> | undefined;
  private attempt = new AbortController();
  private waiters = 0;
  private closed = false;
  private lastError: unknown;
  /** Resolves when the last opened byte stream is closed. */
  private previous: Promise<void> = Promise.resolve();

  constructor(options: AgentChannelOptions) {
    if (!isToken(options.token)) throw new TypeError("a channel's token is 32 hex digits");
    this.options = options;
    this.token = Buffer.from(options.token, "hex");
  }

  /** Whether a session is up at this moment. */
  get connected(): boolean {
    return this.session !== undefined;
  }

  /**
   * Wait until the agent answers.
   * @throws ERR_TIMEOUT_AGENT at the time limit, ERR_AGENT_VERSION, ERR_VM_NOT_RUNNING …
   */
  async ready(options: ReadyOptions = {}): Promise<Hello> {
    const limit = options.timeoutMs;
    if (limit === undefined) return (await this.need(options.signal)).hello;
    const timeout = AbortSignal.timeout(limit);
    const signal =
      options.signal === undefined ? timeout : AbortSignal.any([options.signal, timeout]);
    try {
      return (await this.need(signal)).hello;
    } catch (error) {
      if (!timeout.aborted || options.signal?.aborted === true) throw error;
      throw new VmsanError(
        {
          code: "ERR_TIMEOUT_AGENT",
          message: `The guest's agent did not answer within ${limit} ms`,
          why:
            this.lastError === undefined
              ? "The guest did not boot, or its agent does not run."
              : messageOf(this.lastError),
          fix: "See the VM's console: vmsan logs ID.",
        },
        this.lastError ?? error,
      );
    }
  }

  /** Send the guest its configuration; a new token in it holds from the next session on. */
  async configure(config: GuestConfig, signal?: AbortSignal): Promise<ConfigReply> {
    const reply = await this.request<unknown>("PUT", "/v1/config", {
      body: config,
      ...(signal === undefined ? {} : { signal }),
    });
    if (config.token !== undefined) this.token = Buffer.from(config.token, "hex");
    return parseConfigReply(reply);
  }

  /** See {@link GuestTransport.request}. */
  async request<T>(method: string, path: string, options: RequestOptions = {}): Promise<T> {
    const idempotent = options.idempotent ?? method !== "POST";
    let failingSince: number | undefined;
    for (;;) {
      const session = await this.needSoon(options.signal);
      const started = Date.now();
      try {
        return (await this.call(session.http2, method, path, options)) as T;
      } catch (error) {
        if (options.signal?.aborted === true) throw options.signal.reason as Error;
        if (error instanceof VmsanError) throw error;
        this.drop(session, error);
        // A call that waits long in the guest may break often; only breaks in a row count.
        if (failingSince === undefined || Date.now() - started > RETRY_MS) failingSince = started;
        const tired = Date.now() - failingSince > RETRY_MS;
        if (!idempotent || this.closed || tired) throw unreachable(error);
      }
    }
  }

  /** See {@link GuestTransport.open}. */
  async open(path: string, signal: AbortSignal): Promise<Duplex> {
    const session = await this.need(signal);
    const stream = session.http2.request(this.headers("POST", path), { endStream: false });
    stream.on("response", (headers) => {
      const status = headers[":status"] ?? 0;
      if (status === 200) return;
      stream.destroy(replyError(status, ""));
    });
    return stream;
  }

  /** End the session and every call. The guest and its streams are not touched. */
  close(): void {
    this.closed = true;
    this.attempt.abort(this.closedError());
    this.session?.http2.destroy();
    this.session = undefined;
  }

  /** The error of calls after close. */
  private closedError(): VmsanError {
    return new VmsanError({
      code: "ERR_AGENT_CLOSED",
      message: "The connection to the guest's agent has been closed",
      why: "The VM is being stopped, or this process is ending.",
    });
  }

  /** The session, made if there is none; shared by all who wait for it. */
  private async need(signal?: AbortSignal): Promise<Session> {
    signal?.throwIfAborted();
    if (this.closed) throw this.closedError();
    if (this.session !== undefined) return this.session;
    if (this.connecting === undefined) {
      this.attempt = new AbortController();
      const made = this.connect(this.attempt.signal);
      this.connecting = made;
      const done = (): void => {
        if (this.connecting === made) this.connecting = undefined;
      };
      made.then(done, done);
    }
    this.waiters += 1;
    try {
      return await abortable(this.connecting, signal);
    } finally {
      this.waiters -= 1;
      // Nobody waits any more: a VM that never answers must not be tried for ever.
      if (this.waiters === 0 && this.session === undefined) {
        this.attempt.abort(unreachable("nobody waits any more"));
        this.connecting = undefined;
      }
    }
  }

  /** Like `need`, but a guest that does not answer for a while is an error. */
  private async needSoon(signal?: AbortSignal): Promise<Session> {
    if (this.session !== undefined) return this.session;
    const timeout = AbortSignal.timeout(RETRY_MS);
    try {
      return await this.need(signal === undefined ? timeout : AbortSignal.any([signal, timeout]));
    } catch (error) {
      if (signal?.aborted === true || !timeout.aborted) throw error;
      throw unreachable(this.lastError ?? `no answer within ${RETRY_MS} ms`);
    }
  }

  /** Try until there is a session. */
  private async connect(signal: AbortSignal): Promise<Session> {
    for (let wait = 5; ; wait = Math.min(wait * 2, BACKOFF_MAX_MS)) {
      signal.throwIfAborted();
      try {
        const session = await this.connectOnce(signal);
        this.session = session;
        this.lastError = undefined;
        this.options.onSession?.(session.hello);
        return session;
      } catch (error) {
        signal.throwIfAborted();
        if (isFatal(error)) throw error;
        this.lastError = error;
        await sleep(wait, undefined, { signal });
      }
    }
  }

  /** One stream, one RESET, one hello. */
  private async connectOnce(signal: AbortSignal): Promise<Session> {
    // A driver with one stream a VM (virtio-serial) must have lost the old one first.
    await this.previous;
    const stream = await this.options.open(signal);
    this.previous = new Promise((resolve) => stream.once("close", resolve));
    await handshake(stream, { token: this.token, signal, timeoutMs: ECHO_TIMEOUT_MS });
    const http2 = http2Connect("http://agent", {
      createConnection: () => stream,
      settings: { enablePush: false, initialWindowSize: STREAM_WINDOW, maxFrameSize: MAX_FRAME },
      peerMaxConcurrentStreams: 1000,
      // In MB. The default of 10 is less than two streams' windows and kills the session.
      maxSessionMemory: 1024,
    });
    // A stream that may be half open would not close by the agent's end of it.
    stream.once("end", () => http2.destroy());
    // Reported by every stream of the session; 'close' follows.
    http2.on("error", () => undefined);
    http2.on("connect", () => http2.setLocalWindowSize(CONNECTION_WINDOW));
    try {
      const abort = (): void => http2.destroy();
      signal.addEventListener("abort", abort, { once: true });
      try {
        const hello = parseHello(
          await this.call(http2, "GET", "/v1/hello", {}),
          this.options.build,
        );
        const session = { http2, hello };
        http2.on("close", () => this.drop(session, "the connection closed"));
        http2.on("goaway", () => this.drop(session, "the agent ended the session"));
        if (http2.destroyed) throw unreachable("the connection closed");
        return session;
      } finally {
        signal.removeEventListener("abort", abort);
      }
    } catch (error) {
      http2.destroy();
      throw error;
    }
  }

  /** Forget a broken session, so that the next call makes another. */
  private drop(session: Session, why: unknown): void {
    if (this.session === session) {
      this.session = undefined;
      this.options.log?.(`agent connection lost: ${messageOf(why)}`);
    }
    session.http2.destroy();
  }

  private headers(method: string, path: string): OutgoingHttpHeaders {
    return {
      ":method": method,
      ":authority": "agent",
      ":path": path,
      "vmsan-protocol": String(PROTOCOL_VERSION),
      "vmsan-build": this.options.build,
    };
  }

  /** One call on one session; errors that are not VmsanErrors mean that it broke. */
  private async call(
    session: ClientHttp2Session,
    method: string,
    path: string,
    options: RequestOptions,
  ): Promise<unknown> {
    const body = options.body === undefined ? undefined : JSON.stringify(options.body);
    const stream = session.request(
      {
        ...this.headers(method, path),
        ...(body === undefined ? {} : { "content-type": "application/json" }),
        ...options.headers,
      },
      {
        endStream: body === undefined,
        ...(options.signal === undefined ? {} : { signal: options.signal }),
      },
    );
    if (body !== undefined) stream.end(body);
    const { status, contentType, text } = await readReply(stream, path);
    if (status >= 400) throw replyError(status, text);
    return await parseReply(contentType, text);
  }
}

/** A stream's status and body, to its proper end. */
async function readReply(
  stream: ClientHttp2Stream,
  path: string,
): Promise<{ status: number; contentType: string; text: string }> {
  return await new Promise((resolve, reject) => {
    let status = 0;
    let contentType = "";
    let size = 0;
    let ended = false;
    const chunks: Buffer[] = [];
    stream.on("response", (headers) => {
      status = headers[":status"] ?? 0;
      contentType = headers["content-type"] ?? "";
    });
    stream.on("data", (chunk: Buffer) => {
      size += chunk.length;
      chunks.push(chunk);
      const most = longestReply(path, status);
      if (size > most) stream.destroy(tooLongReply(most));
    });
    stream.on("end", () => {
      ended = true;
    });
    stream.on("error", reject);
    stream.on("close", () => {
      if (ended && status !== 0 && stream.rstCode === 0) {
        resolve({ status, contentType, text: Buffer.concat(chunks).toString("utf8") });
      } else reject(new Error("the connection broke before the reply had come"));
    });
  });
}
