/**
 * oci/http/: HTTP/1.1 as a client. Takes requests; gives answers whose bodies go straight into
 * the taker's memory, within limits.
 *
 * transport.ts: connections kept alive, TLS with private authorities and client
 * certificates, proxies, and an end to every wait.
 */
import type * as Net from "node:net";
import type * as Tls from "node:tls";
import { VmsanError } from "../../model/errors.ts";
import { PullFailure, networkFailure, stalledFailure } from "./failure.ts";
import { imageError } from "../errors.ts";
import { Connection } from "./connection.ts";
import type { BodySink, BodyWriter } from "./connection.ts";
import { defaultCertDirs, secureOptions } from "./certificates.ts";
import { DecodingSink, codingsOf } from "./coding.ts";
import { proxyFor } from "./proxy.ts";
import { encodeRequest } from "./wire.ts";
import type { Head } from "./wire.ts";

/**
 * Length of a window in milliseconds: one with less than 1 KiB ends the connection, so a dead
 * one is noticed after one to two windows.
 */
const IDLE_TIMEOUT_MS = 30_000;
/** Bytes that must come within a window. */
const IDLE_BYTES = 1024;

/** Whom to believe, and who this process is; PEM. */
export interface Identity {
  ca: string;
  cert: string;
  key: string;
}

/** What {@link Transport} may be told. */
export interface TransportOptions {
  /** File of PEM certificates trusted besides the system's. */
  caFile?: string;
  /** Directories with HOST[:PORT]/{*.crt,*.cert,*.key}; default those of Docker and containers. */
  certDirs?: readonly string[];
  /** Hosts (with port) whose certificate is not checked. */
  insecure?: (host: string) => boolean;
  /** Instead of all authorities and certs.d: who has signed the servers' certificates, and what they are shown; PEM. */
  identity?: Identity;
  /** For the proxy variables; default the process's. */
  env?: NodeJS.ProcessEnv;
  /** Default {@link IDLE_TIMEOUT_MS}. */
  idleTimeoutMs?: number;
  /** Bytes of a body that must come within that time; default 1 KiB. */
  idleBytes?: number;
}

/** A body that is not in memory. */
export interface StreamedBody {
  /** Bytes. */
  size: number;
  send: BodyWriter;
}

/** One request. */
export interface TransportRequest {
  method?: "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE";
  headers?: Record<string, string>;
  body?: string | StreamedBody;
  signal?: AbortSignal;
}

/** An answer whose body has not been received yet: receive, read or discard it. */
export interface Answer {
  status: number;
  headers: Record<string, string>;
  url: URL;
  /** Hand the body to a sink. Rejects with a PullFailure, or with the signal's reason. */
  receive(sink: BodySink, signal?: AbortSignal): Promise<void>;
  /** The same with these codings taken off (see coding.ts). */
  receiveDecoded(sink: BodySink, codings: readonly string[], signal?: AbortSignal): Promise<void>;
  /** The body, decoded, in memory, or undefined when it is larger than the limit. */
  read(limit: number, signal?: AbortSignal): Promise<Buffer | undefined>;
  /** Do without the body. */
  discard(): void;
}

/** Connections to registries; close it when done. */
export class Transport {
  readonly idleTimeoutMs: number;
  readonly #options: TransportOptions;
  readonly #open = new Set<Connection>();
  readonly #idle = new Map<string, Connection[]>();
  readonly #secure = new Map<string, Promise<Tls.ConnectionOptions>>();

  /** @param options authorities, insecure hosts, proxies, limits */
  constructor(options: TransportOptions = {}) {
    this.#options = options;
    this.idleTimeoutMs = options.idleTimeoutMs ?? IDLE_TIMEOUT_MS;
  }

  /** End all connections. */
  close(): void {
    for (const connection of this.#open) connection.destroy();
    this.#open.clear();
    this.#idle.clear();
  }

  /**
   * Whether a server speaks TLS at all: only a greeting is sent, and no certificate is looked
   * at (reading all authorities would take longer than pulling a small image).
   */
  async speaksTls(url: URL, signal?: AbortSignal): Promise<boolean> {
    signal?.throwIfAborted();
    if (this.#proxyFor(url) !== undefined) {
      try {
        const answer = await this.request(url, signal === undefined ? {} : { signal });
        answer.discard();
        return true;
      } catch (error) {
        signal?.throwIfAborted();
        if (error instanceof VmsanError) return false;
        throw error;
      }
    }
    const tls = await import("node:tls");
    const host = url.hostname.replace(/^\[|\]$/g, "");
    const port = url.port === "" ? 443 : Number(url.port);
    return new Promise((resolve, reject) => {
      const socket = tls.connect({ host, port, ca: [], rejectUnauthorized: false });
      const end = (settle: () => void): void => {
        signal?.removeEventListener("abort", abort);
        socket.destroy();
        settle();
      };
      const abort = (): void => end(() => reject(signal?.reason as Error));
      signal?.addEventListener("abort", abort, { once: true });
      socket.setTimeout(this.idleTimeoutMs, () =>
        end(() => reject(stalledFailure(url, 1, this.idleTimeoutMs))),
      );
      socket.on("secureConnect", () => end(() => resolve(true)));
      // Refused or not TLS: the plain address is tried, and its error is the one to show.
      socket.on("error", () => end(() => resolve(false)));
      socket.on("close", () => end(() => resolve(false)));
    });
  }

  /** Send one request and give its answer's head; redirects are followed by follow.ts. */
  async request(url: URL, request: TransportRequest = {}): Promise<Answer> {
    const { signal, method = "GET", body = "" } = request;
    const proxy = this.#proxyFor(url);
    const plainProxy = url.protocol === "http:" ? proxy : undefined;
    // To a plain-HTTP proxy the whole address is the path.
    const path = plainProxy === undefined ? url.pathname + url.search : url.href;
    const headers = {
      host: url.host,
      "user-agent": "vmsan",
      // Said always: without it any coding may come (RFC 9110, section 12.5.3).
      "accept-encoding": "identity",
      ...(plainProxy === undefined ? {} : proxyAuthorization(plainProxy)),
      ...request.headers,
    };
    const streamed = typeof body === "string" ? undefined : body;
    const text = typeof body === "string" ? body : body.size;
    const bytes = encodeRequest(method, path, headers, text);
    for (;;) {
      const connection = await this.#connect(url, proxy, signal);
      try {
        const head = await this.#watched(connection, url, 1, signal, async () =>
          connection.exchange(bytes, method, streamed?.send),
        );
        return this.#answer(head, connection, url);
      } catch (error) {
        this.#drop(connection);
        signal?.throwIfAborted();
        // A server may close a kept connection just when it is used again: not its failure. Of a
        // long body it may have taken some, which is for the sender to find out.
        const stale = connection.used && connection.received === 0 && streamed === undefined;
        if (stale && !(error instanceof PullFailure)) continue;
        throw networkFailure(error, url);
      }
    }
  }

  /** What the caller does with an answer. */
  #answer(head: Head, connection: Connection, url: URL): Answer {
    const receive = async (sink: BodySink, signal?: AbortSignal): Promise<void> => {
      try {
        const least = this.#options.idleBytes ?? IDLE_BYTES;
        await this.#watched(connection, url, least, signal, async () =>
          connection.receive(head.framing, sink),
        );
      } catch (error) {
        this.#drop(connection);
        signal?.throwIfAborted();
        throw networkFailure(error, url);
      }
      if (head.keepAlive && !connection.cut) this.#keep(connection, url);
      else this.#drop(connection);
    };
    const receiveDecoded = async (
      sink: BodySink,
      codings: readonly string[],
      signal?: AbortSignal,
    ): Promise<void> => {
      try {
        const decoding = await DecodingSink.open(sink, codings);
        await receive(decoding, signal);
        await decoding.finish();
      } catch (error) {
        this.#drop(connection);
        signal?.throwIfAborted();
        throw networkFailure(error, url);
      }
    };
    return {
      status: head.status,
      headers: head.headers,
      url,
      receive,
      receiveDecoded,
      read: async (limit, signal) => {
        const sink = new MemorySink(limit);
        try {
          const codings = codingsOf(head.headers["content-encoding"]);
          if (codings.length === 0) await receive(sink, signal);
          else await receiveDecoded(sink, codings, signal);
        } catch (error) {
          if (sink.overflow) return undefined;
          throw error;
        }
        return sink.bytes();
      },
      discard: () => this.#drop(connection),
    };
  }

  /** Run a step that ends with an error when less than `bytes` come within the idle time. */
  async #watched<T>(
    connection: Connection,
    url: URL,
    bytes: number,
    signal: AbortSignal | undefined,
    step: () => Promise<T>,
  ): Promise<T> {
    const moved = (): number => connection.received + connection.sent;
    let before = moved();
    const watch = setInterval(() => {
      if (moved() - before < bytes) {
        connection.destroy(stalledFailure(url, bytes, this.idleTimeoutMs));
      }
      before = moved();
    }, this.idleTimeoutMs);
    const abort = (): void => connection.destroy(new Error("aborted"));
    signal?.addEventListener("abort", abort, { once: true });
    try {
      signal?.throwIfAborted();
      return await step();
    } finally {
      clearInterval(watch);
      signal?.removeEventListener("abort", abort);
    }
  }

  /** Keep a connection for the next request to the same origin. */
  #keep(connection: Connection, url: URL): void {
    const idle = this.#idle.get(url.origin) ?? [];
    connection.received = 0;
    idle.push(connection);
    this.#idle.set(url.origin, idle);
  }

  #drop(connection: Connection): void {
    this.#open.delete(connection);
    connection.destroy();
  }

  #proxyFor(url: URL): URL | undefined {
    const proxy = proxyFor(url, this.#options.env ?? process.env);
    if (proxy !== undefined && !["http:", "https:"].includes(proxy.protocol)) {
      throw proxyError(url, proxy, `Proxies of the kind ${proxy.protocol} are not supported.`);
    }
    return proxy;
  }

  /** A connection to the origin: a kept one, or a new one. */
  async #connect(url: URL, proxy: URL | undefined, signal?: AbortSignal): Promise<Connection> {
    signal?.throwIfAborted();
    const idle = this.#idle.get(url.origin) ?? [];
    for (let kept = idle.pop(); kept !== undefined; kept = idle.pop()) {
      if (kept.usable) return kept;
      this.#drop(kept);
    }
    if (proxy !== undefined && url.protocol === "https:") {
      return this.#tunnel(url, proxy, signal);
    }
    return this.#openTo(proxy ?? url);
  }

  /** TLS settings of a host, read once. */
  async #secureFor(url: URL): Promise<Tls.ConnectionOptions> {
    const { identity } = this.#options;
    if (identity !== undefined) return identity;
    let secure = this.#secure.get(url.host);
    if (secure === undefined) {
      secure = secureOptions(
        url,
        this.#options.certDirs ?? defaultCertDirs(this.#options.env),
        this.#options.caFile,
        this.#options.insecure?.(url.host) === true,
      );
      this.#secure.set(url.host, secure);
    }
    return secure;
  }

  /** Open a connection that reads straight into the sinks' memory. */
  async #openTo(url: URL): Promise<Connection> {
    const secure = url.protocol === "https:";
    const connection = new Connection();
    const hostname = url.hostname.replace(/^\[|\]$/g, "");
    const port = url.port === "" ? (secure ? 443 : 80) : Number(url.port);
    const where = { host: hostname, port, onread: connection.onread };
    let socket: Net.Socket;
    if (secure) {
      const options = await this.#secureFor(url);
      const tls = await import("node:tls");
      socket = tls.connect({ ...where, ...options });
    } else {
      const net = await import("node:net");
      socket = net.connect(where);
    }
    connection.attach(socket, false);
    this.#open.add(connection);
    return connection;
  }

  /** Open a connection to an https origin through a proxy (CONNECT). */
  async #tunnel(url: URL, proxy: URL, signal?: AbortSignal): Promise<Connection> {
    const hop = await this.#plainHop(url, proxy, signal);
    const options = await this.#secureFor(url);
    const tls = await import("node:tls");
    const connection = new Connection();
    connection.attach(tls.connect({ ...options, socket: hop }), true);
    this.#open.add(connection);
    return connection;
  }

  /** Ask the proxy for a tunnel and give its socket. */
  async #plainHop(url: URL, proxy: URL, signal?: AbortSignal): Promise<Net.Socket> {
    const host = proxy.hostname.replace(/^\[|\]$/g, "");
    const secure = proxy.protocol === "https:";
    const port = proxy.port === "" ? (secure ? 443 : 80) : Number(proxy.port);
    const socket = secure
      ? (await import("node:tls")).connect({ host, port, ...(await this.#secureFor(proxy)) })
      : (await import("node:net")).connect({ host, port });
    const authority = `${url.hostname}:${url.port === "" ? "443" : url.port}`;
    const headers = { host: authority, ...proxyAuthorization(proxy) };
    return new Promise((resolve, reject) => {
      const fail = (error: Error): void => {
        socket.destroy();
        if (signal?.aborted === true) reject(signal.reason as Error);
        else reject(error instanceof VmsanError ? error : networkFailure(error, proxy));
      };
      const abort = (): void => fail(new Error("aborted"));
      let head = "";
      const onData = (bytes: Buffer): void => {
        head += bytes.toString("latin1");
        const end = head.indexOf("\r\n\r\n");
        if (end === -1 && head.length < 16_384) return;
        const status = /^HTTP\/1\.[01] (\d{3})/.exec(head)?.[1] ?? "no HTTP status";
        if (status !== "200") {
          fail(proxyError(url, proxy, `The proxy answered with ${status}.`));
          return;
        }
        // TLS servers wait for the client's greeting, so nothing can follow the head.
        socket.pause();
        socket.off("data", onData).off("error", fail);
        socket.setTimeout(0);
        signal?.removeEventListener("abort", abort);
        resolve(socket);
      };
      signal?.addEventListener("abort", abort, { once: true });
      socket.setTimeout(this.idleTimeoutMs, () =>
        fail(stalledFailure(proxy, 1, this.idleTimeoutMs)),
      );
      socket.on("data", onData).on("error", fail);
      socket.on("end", () => fail(new Error("The proxy closed the connection")));
      socket.write(encodeRequest("CONNECT", authority, headers));
    });
  }
}

/** Gathers a small body. */
class MemorySink implements BodySink {
  /** Whether more came than allowed. */
  overflow = false;
  readonly #limit: number;
  readonly #scratch = Buffer.allocUnsafe(1 << 16);
  readonly #parts: Buffer[] = [];
  #size = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  space(): Uint8Array {
    return this.#scratch;
  }

  filled(size: number): void {
    this.#size += size;
    if (this.#size > this.#limit) {
      this.overflow = true;
      throw new Error("The body is too large");
    }
    this.#parts.push(Buffer.from(this.#scratch.subarray(0, size)));
  }

  bytes(): Buffer {
    return Buffer.concat(this.#parts);
  }
}

/** The header that lets a proxy's user in. */
function proxyAuthorization(proxy: URL): Record<string, string> {
  if (proxy.username === "") return {};
  const user = decodeURIComponent(proxy.username);
  const password = decodeURIComponent(proxy.password);
  const value = Buffer.from(`${user}:${password}`).toString("base64");
  return { "proxy-authorization": `Basic ${value}` };
}

/** The error for a proxy that does not help. */
function proxyError(url: URL, proxy: URL, why: string): Error {
  return imageError(
    "ERR_IMAGE_PROXY",
    `Cannot reach ${url.host} through the proxy ${proxy.host}`,
    why,
    "Check HTTPS_PROXY, HTTP_PROXY and NO_PROXY, and the proxy's own rules.",
  );
}
