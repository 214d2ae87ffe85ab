/**
 * client/: the one client of the daemon, used by the SDK and by the CLI. Takes requests as
 * nouns of model/, gives their results; starts the daemon when it does not run.
 *
 * transport.ts: HTTP/1.1 over the daemon's unix socket, or over TCP to a gateway.
 */
import type * as Http from "node:http";
import type { ClientRequest, IncomingMessage, RequestOptions } from "node:http";
import type { Duplex, Readable } from "node:stream";
import { PATIENCE_HEADER, TIMING_HEADER, VERSION_HEADER } from "../model/api.ts";
import type { CallTiming, RegistryAccess, ReplyLine } from "../model/api.ts";
import { VmsanError, errnoOf } from "../model/errors.ts";
import type { ProgressSink } from "../model/progress.ts";
import { httpModule, httpsModule } from "../util/process/http-modules.ts";
import { packageVersion } from "../util/package.ts";
import { collect } from "../util/flow/collect.ts";
import { socketPath } from "../util/socket-path.ts";
import { asStep, beginStep, isTimed, noteCall } from "./tracing/timeline.ts";
import { switchUnix } from "./connection/upgrade.ts";
import { errorFrom } from "./connection/reply-error.ts";
import { watchRequest } from "./connection/watchdog.ts";

/** Far more than a page of VMs has; lists of images and snapshots are whole. */
const MAX_REPLY = 384 << 20;
const MAX_LINE = 16 << 20;

/** What a call may carry. */
export interface CallOptions {
  /** Sent as JSON. */
  body?: unknown;
  /** Opens what is sent as it is (instead of `body`). */
  upload?: () => Readable;
  signal?: AbortSignal;
  headers?: Record<string, string>;
}

/** What a call with a streamed reply may carry. */
export interface StreamedCallOptions extends CallOptions {
  onProgress?: ProgressSink;
  /** The VM this call makes, as soon as it has an ID. */
  onVm?: (id: string) => void;
  /**
   * Receives a function that ends the call, which is otherwise left open after its result:
   * the daemon keeps what the call made for as long as it is open.
   */
  onHold?: (release: () => void) => void;
  /** Called when the connection that holds breaks before it is released. */
  onHoldLost?: () => void;
}

/** Whether the error says that nobody listens on the socket. */
export function isNotListening(error: unknown): boolean {
  const errno = errnoOf(error);
  return errno === "ENOENT" || errno === "ECONNREFUSED";
}

/** Whether the error says that no daemon is there, and that none was killed: one that ends in order takes its socket away. */
export function hasEnded(error: unknown): boolean {
  return errnoOf(error) === "ENOENT";
}

/** Whether the daemon refused a call, before it did anything, because its version is another. */
export function isOtherVersion(error: unknown): boolean {
  return error instanceof VmsanError && error.code === "ERR_DAEMON_VERSION";
}

/** Whether the error says that the daemon went away in the middle of a call. */
export function isConnectionLost(error: unknown): boolean {
  const errno = errnoOf(error);
  return errno === "ECONNRESET" || errno === "EPIPE" || isNotListening(error);
}

/** Loaded on first use. */
function http(secure: boolean): Pick<typeof Http, "request"> {
  return secure ? httpsModule() : httpModule();
}

/**
 * A socket's path has no name for TLS. Said here, because node:http would else look whether the
 * Host header is an IP address, which takes 4 ms the first time.
 */
const NO_SERVER_NAME = { servername: "" };

/** A path that can be written into a request as it is. */
const PLAIN_PATH = /^\/[\x21-\x7e]*$/;

/** A gateway on another machine (`vmsan serve`), and the key that it is shown. */
export interface RemoteServer {
  /** `http://HOST:PORT` or `https://HOST:PORT`. */
  url: string;
  /** The API key's text. */
  key: string;
  /** Certificates to trust instead of the system's, PEM. */
  ca?: string;
}

/** A way to a server that is no socket of its own: each request has a connection. */
export interface Tunnel {
  /** For messages. */
  name: string;
  /** Sent with each request. */
  headers: Record<string, string>;
  open(): Promise<Duplex>;
}

/** What takes calls, however it does. */
export interface Backend {
  /** Whether its process is not ours to start or to end. */
  readonly remote: boolean;
  /** A call with one JSON value as its reply; undefined for 204. */
  call<T>(method: string, path: string, options?: CallOptions): Promise<T>;
  /** A call whose reply is bytes. */
  download(method: string, path: string, options?: CallOptions): Promise<Readable>;
  /** A call whose reply is lines of progress and then a result. */
  streamed<T>(method: string, path: string, options: StreamedCallOptions): Promise<T>;
  /** Switch a connection to raw bytes. @param patienceMs when the caller gives up; see PATIENCE_HEADER */
  upgrade(path: string, signal?: AbortSignal, patienceMs?: number): Promise<Duplex>;
}

/**
 * A request without this machine's variables of registries (util/registry-env.ts): they may hold credentials, and mean nothing on
 * another.
 */
function withoutOwnRegistryEnv(body: unknown): unknown {
  if (typeof body !== "object" || body === null || !("registry" in body)) return body;
  return { ...body, registry: { ...(body.registry as RegistryAccess), env: undefined } };
}

/** How one request gets to its server. */
interface Route extends Disposable {
  options: RequestOptions;
  headers: Record<string, string>;
  secure: boolean;
}

/** Calls to one daemon socket, to one gateway, or by a way of their own. */
export class Transport implements Backend {
  private readonly server: string | RemoteServer | Tunnel;

  /** @param server absolute path of the daemon's socket, of any length; or a gateway; or a way to one */
  constructor(server: string | RemoteServer | Tunnel) {
    this.server = server;
  }

  /** Whether this speaks to a gateway, whose process is not ours to start or to end. */
  get remote(): boolean {
    return typeof this.server !== "string";
  }

  private route(): Route {
    if (typeof this.server === "string") {
      const address = socketPath(this.server);
      return {
        options: { ...NO_SERVER_NAME, socketPath: address.path },
        headers: { host: "vmsan" },
        secure: false,
        [Symbol.dispose]: () => address[Symbol.dispose](),
      };
    }
    if ("open" in this.server) {
      const { server } = this;
      return {
        options: {
          agent: undefined,
          createConnection: (_options, done) => {
            server.open().then(
              (connection) => {
                done(null, connection);
              },
              (error: Error) => {
                done(error, undefined as never);
              },
            );
            return undefined;
          },
        },
        headers: { host: "vmsan", ...server.headers },
        secure: false,
        [Symbol.dispose]: () => undefined,
      };
    }
    const { url, key, ca } = this.server;
    const { protocol, hostname, port, host } = new URL(url);
    const secure = protocol === "https:";
    return {
      options: {
        host: hostname.replace(/^\[(.*)\]$/, "$1"),
        port: port === "" ? (secure ? 443 : 80) : Number(port),
        ...(ca === undefined ? {} : { ca }),
      },
      headers: { host, authorization: `Bearer ${key}` },
      secure,
      [Symbol.dispose]: () => undefined,
    };
  }

  /** See {@link watchRequest}. */
  private watch(request: ClientRequest): void {
    const settle = this.watched(request);
    for (const event of ["response", "upgrade", "close"]) request.once(event, settle);
  }

  private watched(request: Parameters<typeof watchRequest>[0]): () => void {
    const { server } = this;
    // A tunnel looks by itself whether its end is there.
    if (typeof server !== "string" && "open" in server) return () => undefined;
    const name = typeof server === "string" ? server : server.url;
    return watchRequest(request, name, (timeout) => {
      using route = this.route();
      const { options, headers, secure } = route;
      return http(secure).request({
        agent: false,
        ...options,
        headers,
        path: "/v1/version",
        timeout,
      });
    });
  }

  private async send(method: string, path: string, options: CallOptions): Promise<IncomingMessage> {
    using route = this.route();
    const headers: Record<string, string> = {
      ...route.headers,
      [VERSION_HEADER]: packageVersion(),
      ...(isTimed() ? { [TIMING_HEADER]: "1" } : {}),
      ...options.headers,
    };
    const body = this.remote ? withoutOwnRegistryEnv(options.body) : options.body;
    const payload = body === undefined ? undefined : JSON.stringify(body);
    if (payload !== undefined) headers["content-type"] = "application/json";
    const requestOptions: RequestOptions = {
      // A connection each: an idle one kept open would keep this process from ending.
      agent: false,
      ...route.options,
      method,
      path,
      headers,
      ...(options.signal === undefined ? {} : { signal: options.signal }),
    };
    return await new Promise<IncomingMessage>((resolve, reject) => {
      const request = http(route.secure).request(requestOptions, resolve);
      request.on("error", reject);
      this.watch(request);
      if (options.upload === undefined) {
        request.end(payload);
        return;
      }
      const upload = options.upload();
      upload.on("error", (error) => request.destroy(error));
      // Answered before all of it was taken: nobody waits for the rest.
      request.once("response", (reply: IncomingMessage) =>
        reply.once("end", () => void (request.writableFinished || request.destroy())),
      );
      request.on("close", () => upload.unpipe(request));
      upload.pipe(request);
    });
  }

  /** A call with one JSON value as its reply; undefined for 204. */
  async call<T>(method: string, path: string, options: CallOptions = {}): Promise<T> {
    return await asStep(`${method} ${path}`, async () => {
      const began = performance.now();
      const reply = await this.send(method, path, options);
      const text = await readText(reply);
      const told = reply.headers[TIMING_HEADER];
      if (typeof told === "string") noteCall(JSON.parse(told) as CallTiming, began);
      const status = reply.statusCode ?? 0;
      if (status >= 400) throw errorFrom(status, text);
      return (text === "" ? undefined : JSON.parse(text)) as T;
    });
  }

  /** A call whose reply is bytes. */
  async download(method: string, path: string, options: CallOptions = {}): Promise<Readable> {
    const end = beginStep(`${method} ${path}`);
    try {
      const reply = await this.send(method, path, options);
      const status = reply.statusCode ?? 0;
      if (status >= 400) throw errorFrom(status, await readText(reply));
      reply.once("close", end);
      return reply;
    } catch (error) {
      end();
      throw error;
    }
  }

  /** A call whose reply is lines of progress and then a result. */
  async streamed<T>(method: string, path: string, options: StreamedCallOptions): Promise<T> {
    return await asStep(`${method} ${path}`, () => this.receive<T>(method, path, options));
  }

  private async receive<T>(method: string, path: string, options: StreamedCallOptions): Promise<T> {
    const began = performance.now();
    const reply = await this.send(method, path, options);
    const status = reply.statusCode ?? 0;
    if (status >= 400) throw errorFrom(status, await readText(reply));
    return await new Promise<T>((resolve, reject) => {
      let settled = false;
      let released = false;
      let pending = "";
      reply.setEncoding("utf8");
      // After the result an error only means that the hold is lost: 'close' says so.
      reply.on("error", reject);
      reply.on("close", () => {
        if (settled) {
          if (options.onHold !== undefined && !released) options.onHoldLost?.();
        } else {
          reject(
            Object.assign(new Error("the daemon closed the connection"), { code: "ECONNRESET" }),
          );
        }
      });
      const take = (line: ReplyLine<T>): void => {
        switch (line.event) {
          case "progress":
            options.onProgress?.(line.progress);
            break;
          case "vm":
            options.onVm?.(line.id);
            break;
          case "timing":
            noteCall(line.timing, began);
            break;
          case "error":
            settled = true;
            reject(new VmsanError(line.error));
            break;
          case "result":
            settled = true;
            if (options.onHold === undefined) reply.resume();
            else {
              options.onHold(() => {
                released = true;
                reply.destroy();
              });
            }
            resolve(line.result);
            break;
          default:
            // A newer daemon may say more; lines not known here are not needed here.
            break;
        }
      };
      reply.on("data", (text: string) => {
        pending += text;
        const lines = pending.split("\n");
        pending = lines.pop() ?? "";
        if (pending.length > MAX_LINE) reply.destroy(new Error("a line of the reply is too long"));
        for (const line of lines) if (line !== "") take(JSON.parse(line) as ReplyLine<T>);
      });
    });
  }

  /** Switch a connection to raw bytes (HTTP/1.1 Upgrade, protocol `vmsan-stream`). */
  async upgrade(path: string, signal?: AbortSignal, patienceMs?: number): Promise<Duplex> {
    const { server } = this;
    const headers = {
      [VERSION_HEADER]: packageVersion(),
      ...(patienceMs === undefined ? {} : { [PATIENCE_HEADER]: String(Math.trunc(patienceMs)) }),
      connection: "Upgrade",
      upgrade: "vmsan-stream",
    };
    if (typeof server === "string" && PLAIN_PATH.test(path)) {
      const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
      const head = `POST ${path} HTTP/1.1\r\nhost: vmsan\r\n${lines.join("")}\r\n`;
      const socket = await switchUnix(server, head, (one) => this.watched(one), signal);
      if (socket !== undefined) return socket;
    }
    using route = this.route();
    const requestOptions: RequestOptions = {
      agent: false,
      ...route.options,
      method: "POST",
      path,
      headers: { ...route.headers, ...headers },
      ...(signal === undefined ? {} : { signal }),
    };
    return await new Promise<Duplex>((resolve, reject) => {
      const request = http(route.secure).request(requestOptions);
      request.on("error", reject);
      this.watch(request);
      request.on("upgrade", (_reply, socket, head) => {
        if (head.length > 0) socket.unshift(head);
        resolve(socket);
      });
      request.on("response", (reply) => {
        readText(reply).then((text) => reject(errorFrom(reply.statusCode ?? 0, text)), reject);
      });
      request.end();
    });
  }
}

/** A reply's body as text, bounded. */
async function readText(reply: IncomingMessage): Promise<string> {
  const tooLong = (): Error => new Error("the daemon's reply is too long");
  return (await collect(reply, MAX_REPLY, tooLong)).toString("utf8");
}
