/** The API server over HTTPS, as node:https speaks it: connections are kept, requests bounded. */
import type { Agent, IncomingMessage, RequestOptions } from "node:http";
import type { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { VmsanError, messageOf } from "../model/errors.ts";
import { collect } from "../util/flow/collect.ts";
import { Slots } from "../util/flow/slots.ts";
import { httpModule, httpsModule } from "../util/process/http-modules.ts";
import type { WebSocket } from "ws";
import { ApiError, isStatus } from "./api-server.ts";
import type { ApiRequest, ApiServer, WatchStep } from "./api-server.ts";
import type { Identity, TlsIdentity } from "./identity.ts";
import { watchList } from "./watch.ts";

/** Most bytes of one reply. */
const MAX_REPLY = 256 << 20;
/** Most bytes of one message of a WebSocket. */
const MAX_MESSAGE = 16 << 20;
/** Connections at a time: what waits beyond them is sent as they get free. */
const CONNECTIONS = 16;
/** Milliseconds without a byte until a request is given up. */
const SILENCE_MS = 30_000;
/** How often a request is made again that the server is too busy for. */
const BUSY_ATTEMPTS = 10;

/** Whether a request may be made again although it is not known whether it was carried out. */
const REPEATABLE = new Set(["GET", "PATCH", "PUT", "DELETE"]);

/** The API server has not answered. */
function unreachable(url: string, request: string, cause: unknown): VmsanError {
  return new VmsanError(
    {
      code: "ERR_NODE_API",
      message: `The API server at ${url} does not answer ${request}`,
      why: messageOf(cause),
      fix: "Check that it runs, and that this host reaches it.",
    },
    cause,
  );
}

/** What a reply says that is no success. */
function refusal(status: number, request: string, text: string): ApiError {
  try {
    const { reason = "", message = "" } = JSON.parse(text) as { reason?: string; message?: string };
    return new ApiError(status, reason, request, message);
  } catch {
    // Not JSON, e.g. of a proxy in between: told as it came.
    return new ApiError(status, "", request, text);
  }
}

/** Whether a connection that had been kept was closed by the server as a request was sent on it. */
function isStale(error: unknown, reused: boolean): boolean {
  const code = (error as NodeJS.ErrnoException).code;
  return reused && (code === "ECONNRESET" || code === "EPIPE");
}

/** Have an agent's connections end: those that nobody uses now, the others once what is under way on them is over. */
function retire(agent: Agent): void {
  agent.maxFreeSockets = 0;
  for (const idle of Object.values(agent.freeSockets)) idle?.forEach((socket) => socket.destroy());
}

/** A cluster's API server, as one identity. */
export class KubeClient implements ApiServer {
  readonly url: string;
  private readonly identity: Identity;
  private tls: TlsIdentity | undefined;
  private agent: Agent | undefined;
  /** Agents of earlier identities on whose connections something may be under way. */
  private retired: Agent[] = [];
  /** One that waits for a connection is not made yet: hundreds of them would be megabytes. */
  private readonly turns = new Slots(CONNECTIONS);
  private closed = false;

  private readonly complain: (error: unknown) => void;

  /** @param complain told when a watch cannot go on for a while; nothing is lost by it */
  constructor(identity: Identity, complain: (error: unknown) => void = () => undefined) {
    this.identity = identity;
    this.complain = complain;
    this.url = identity.url;
  }

  /** Connections that are made as this process is known now. */
  private connections(): Agent {
    const tls = this.identity.tls();
    if (this.agent !== undefined && tls === this.tls) return this.agent;
    if (this.agent !== undefined) {
      retire(this.agent);
      const all = [...this.retired, this.agent];
      this.retired = all.filter(({ sockets }) => Object.keys(sockets).length > 0);
    }
    this.tls = tls;
    const kept = { keepAlive: true, keepAliveMsecs: 15_000, maxSockets: CONNECTIONS };
    this.agent = this.url.startsWith("https:")
      ? new (httpsModule().Agent)({ ...kept, ...tls })
      : new (httpModule().Agent)(kept);
    return this.agent;
  }

  /** Send one request; resolves with the reply's head. */
  private async send(
    method: string,
    path: string,
    { body, type = "application/json", accept = "application/json", signal }: ApiRequest,
    silenceMs: number,
  ): Promise<IncomingMessage> {
    const asked = async (): Promise<IncomingMessage> => {
      // Made now: those of hundreds that wait would be megabytes.
      const payload = body === undefined ? undefined : Buffer.from(JSON.stringify(body));
      const url = new URL(this.url + path);
      const options: RequestOptions = {
        method,
        headers: {
          accept,
          "user-agent": "vmsan",
          ...(await this.identity.headers()),
          // Node.js sends no length with the body of a DELETE, which is then read as the next request.
          ...(payload === undefined
            ? {}
            : { "content-type": type, "content-length": payload.length }),
        },
        ...(signal === undefined ? {} : { signal }),
      };
      // Its turn may come because the connections were ended.
      if (this.closed) throw new Error("the client was closed");
      const agent = this.connections();
      return await new Promise((resolve, reject) => {
        const request = (url.protocol === "https:" ? httpsModule() : httpModule()).request(
          url,
          { ...options, agent },
          resolve,
        );
        request.setTimeout(silenceMs, () =>
          request.destroy(new Error("there was no answer in time")),
        );
        request.on("error", (error) =>
          reject(isStale(error, request.reusedSocket) ? new StaleError(error) : error),
        );
        request.end(payload);
      });
    };
    return await this.turns.run(asked, signal);
  }

  /** As {@link send}, with what is to be done again done again. */
  private async answered(
    method: string,
    path: string,
    options: ApiRequest,
    silenceMs = SILENCE_MS,
  ): Promise<IncomingMessage> {
    const what = `${method} ${path.replace(/\?.*$/s, "")}`;
    for (let attempt = 1; ; attempt += 1) {
      let reply: IncomingMessage;
      try {
        reply = await this.send(method, path, options, silenceMs);
      } catch (error) {
        options.signal?.throwIfAborted();
        const repeatable = options.repeat ?? REPEATABLE.has(method);
        if (error instanceof StaleError && attempt < 4 && repeatable) continue;
        throw unreachable(this.url, what, error instanceof StaleError ? error.cause : error);
      }
      const status = reply.statusCode ?? 0;
      if (status < 300) return reply;
      const text = await readText(reply);
      if (status === 401 && attempt === 1 && this.identity.refused()) continue;
      const after = Number(reply.headers["retry-after"]);
      // Nothing was done: it is too busy, or is being stopped.
      if ((status === 429 || status === 503) && after > 0 && attempt < BUSY_ATTEMPTS) {
        await sleep(Math.min(after, 30) * 1000, undefined, { signal: options.signal });
        continue;
      }
      throw refusal(status, what, text);
    }
  }

  async request(method: string, path: string, options: ApiRequest = {}): Promise<unknown> {
    const reply = await this.answered(method, path, options);
    try {
      const text = await readText(reply);
      return text === "" ? undefined : JSON.parse(text);
    } catch (error) {
      options.signal?.throwIfAborted();
      throw unreachable(this.url, `${method} ${path}`, error);
    }
  }

  /** Bytes that come as they are written, for which nobody knows how long that takes. */
  async download(path: string, signal?: AbortSignal): Promise<Readable> {
    return await this.answered("GET", path, signal === undefined ? {} : { signal }, 0);
  }

  async *watch(path: string, signal: AbortSignal): AsyncGenerator<WatchStep> {
    yield* watchList(
      {
        list: async (query) => await this.request("GET", query, { signal }),
        open: async (query) => await this.answered("GET", query, { signal }, 3 * SILENCE_MS),
        complain: this.complain,
      },
      path,
      signal,
    );
  }

  /**
   * Open a WebSocket, for a session with a pod.
   * @throws ApiError when the server refuses it, ERR_NODE_API when it does not answer
   */
  async webSocket(path: string, protocol: string, signal?: AbortSignal): Promise<WebSocket> {
    const what = `GET ${path.replace(/\?.*$/s, "")}`;
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.openSocket(path, protocol, what, signal);
      } catch (error) {
        signal?.throwIfAborted();
        const again = isStatus(error, 401) && attempt === 1 && this.identity.refused();
        if (!again) throw error instanceof ApiError ? error : unreachable(this.url, what, error);
      }
    }
  }

  private async openSocket(
    path: string,
    protocol: string,
    what: string,
    signal: AbortSignal | undefined,
  ): Promise<WebSocket> {
    const { WebSocket: Socket } = await import("ws");
    const socket = new Socket(this.url.replace(/^http/, "ws") + path, [protocol], {
      ...(this.identity.tls() as object),
      headers: { "user-agent": "vmsan", ...(await this.identity.headers()) },
      handshakeTimeout: SILENCE_MS,
      perMessageDeflate: false,
      maxPayload: MAX_MESSAGE,
    });
    const leave = (): void => socket.terminate();
    signal?.addEventListener("abort", leave, { once: true });
    try {
      return await new Promise<WebSocket>((resolve, reject) => {
        socket.once("open", () => {
          // What comes with the open is not lost: whoever takes it is told later.
          socket.pause();
          resolve(socket);
        });
        socket.once("error", reject);
        socket.once("unexpected-response", (_request, reply: IncomingMessage) => {
          readText(reply)
            .then((text) => reject(refusal(reply.statusCode ?? 0, what, text)), reject)
            .finally(() => socket.terminate());
        });
      });
    } finally {
      signal?.removeEventListener("abort", leave);
    }
  }

  /** End all connections: what is under way fails, and what waits or comes later is not sent. */
  close(): void {
    this.closed = true;
    for (const agent of [...this.retired, this.agent]) agent?.destroy();
  }
}

/** A kept connection was gone before the request had got anywhere. */
class StaleError extends Error {
  constructor(cause: unknown) {
    super("the connection was closed", { cause });
  }
}

/** A reply's body as text, bounded. */
async function readText(reply: IncomingMessage): Promise<string> {
  const bytes = await collect(reply, MAX_REPLY, () => new Error("the reply is too long"));
  return bytes.toString("utf8");
}
