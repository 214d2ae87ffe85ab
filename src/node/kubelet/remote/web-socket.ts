/** Sessions by WebSocket: the first byte of each message says which stream it belongs to. */
import type { IncomingMessage } from "node:http";
import { Readable } from "node:stream";
import type { Duplex } from "node:stream";
import type { RawData, WebSocket } from "ws";
import type { OutputNumber } from "../../../agent/frames.ts";
import { agreeToWebSocket, webSocketServer } from "../../../http/websocket.ts";
import { Sizes } from "./session.ts";
import type { RemoteSession, SessionWish } from "./session.ts";

/** The first version, which tells how a command ended in words, and only when it failed. */
const FIRST = "channel.k8s.io";

/** What is spoken, the better one first: version 5 can end the input alone. */
const PROTOCOLS = ["v5.channel.k8s.io", "v4.channel.k8s.io", FIRST] as const;

const Channel = { stdin: 0, status: 3, resize: 4, close: 255 } as const;

/** Most bytes of one message: some clients send all their input in one. */
const MAX_MESSAGE = 8 << 20;

/** How often a client is asked for a sign, in milliseconds: what is written tells that it has gone. */
const PING_MS = 5_000;

/** How long a client has to take the end, in milliseconds. */
const CLOSE_MS = 5_000;

/** Longest of a size. */
const MAX_SIZE = 1_024;

const server = webSocketServer({
  maxPayload: MAX_MESSAGE,
  handleProtocols: (offered) => PROTOCOLS.find((name) => offered.has(name)) ?? false,
});

/** The subprotocols that a request for a WebSocket offers. */
function offeredProtocols(request: IncomingMessage): string[] {
  return (request.headers["sec-websocket-protocol"] ?? "").split(",").map((one) => one.trim());
}

/** Whether a request asks for a session by WebSocket in a version that is spoken here. */
export function speaksChannels(request: IncomingMessage): boolean {
  const offered = offeredProtocols(request);
  return PROTOCOLS.some((name) => offered.includes(name));
}

/** The client's input: it is held back while nobody takes it. */
class Input extends Readable {
  private readonly socket: WebSocket;

  constructor(socket: WebSocket) {
    super({ highWaterMark: 256 << 10 });
    this.socket = socket;
  }

  override _read(): void {
    if (this.socket.isPaused) this.socket.resume();
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    // What follows is nobody's; the messages that end the connection are to be seen.
    this._read();
    done(error);
  }

  /** Take a piece. */
  accept(bytes: Buffer): void {
    if (this.readableEnded || this.destroyed || bytes.length === 0) return;
    if (!this.push(bytes)) this.socket.pause();
  }
}

function bytesOf(data: RawData): Buffer {
  if (Buffer.isBuffer(data)) return data;
  return Array.isArray(data) ? Buffer.concat(data) : Buffer.from(data);
}

class WebSocketSession implements RemoteSession {
  readonly stdin: Input | undefined;
  readonly gone: AbortSignal;
  private readonly socket: WebSocket;
  private readonly sizes = new Sizes();
  private inputEnded = false;

  constructor(socket: WebSocket, wish: SessionWish) {
    this.socket = socket;
    this.stdin = wish.stdin ? new Input(socket) : undefined;
    const left = new AbortController();
    this.gone = left.signal;
    const ping = setInterval(() => socket.ping(), PING_MS);
    ping.unref();
    // Followed by its close.
    socket.on("error", () => undefined);
    socket.on("close", () => {
      clearInterval(ping);
      this.stdin?.destroy();
      left.abort(new Error("the client has gone"));
    });
    socket.on("message", (data) => this.take(bytesOf(data)));
  }

  private take(message: Buffer): void {
    const rest = message.subarray(1);
    const channel = message[0] ?? Channel.stdin;
    switch (channel) {
      case Channel.stdin:
        if (!this.inputEnded) this.stdin?.accept(rest);
        break;
      case Channel.resize:
        if (rest.length <= MAX_SIZE) this.sizes.accept(rest);
        break;
      case Channel.close:
        if (rest[0] !== Channel.stdin || this.inputEnded) break;
        this.inputEnded = true;
        this.stdin?.push(null);
        break;
      default:
        // Streams that a server alone writes to, and those of later versions.
        break;
    }
  }

  private async send(channel: number, bytes: Buffer): Promise<void> {
    await new Promise<void>((resolve) => {
      // A client that has gone is told of by the close.
      this.socket.send(Buffer.concat([Buffer.of(channel), bytes]), () => resolve());
    });
  }

  async output(stream: OutputNumber, bytes: Buffer): Promise<void> {
    await this.send(stream, bytes);
  }

  onResize(take: (rows: number, cols: number) => void): void {
    this.sizes.onResize(take);
  }

  async end(status: object): Promise<void> {
    const { message = "" } = status as { message?: string };
    const said = this.socket.protocol === FIRST ? message : JSON.stringify(status);
    if (said !== "") await this.send(Channel.status, Buffer.from(said));
    this.stdin?.destroy();
    const closed = new Promise<void>((resolve) => this.socket.once("close", () => resolve()));
    if (this.socket.readyState === this.socket.CLOSED) return;
    this.socket.close(1000);
    const timer = setTimeout(() => this.socket.terminate(), CLOSE_MS);
    await closed;
    clearTimeout(timer);
  }
}

/** Agree to a session by WebSocket. @throws when it is none, which has been answered then */
export async function acceptWebSocket(
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
  wish: SessionWish,
): Promise<RemoteSession> {
  return await agreeToWebSocket(
    server,
    request,
    socket,
    head,
    (accepted) => new WebSocketSession(accepted, wish),
  );
}
