/**
 * HTTP/2 beside HTTP/1.1 on one port: by ALPN for those names alone that it is offered for, or by prior knowledge on a
 * connection without TLS. Everything else of a gateway is HTTP/1.1's.
 */
import { createServer } from "node:http2";
import type {
  Http2Server,
  Http2ServerRequest,
  Http2ServerResponse,
  Http2Session,
} from "node:http2";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { Socket } from "node:net";

/** What tells HTTP/2 from HTTP/1.1: no method begins like its first word, `PRI`. */
const PREFACE = Buffer.from("PRI");
/** A connection without a stream is kept open so long, as with HTTP/1.1. */
const IDLE_MS = 75_000;

/** Bounds for one connection: as many streams as a client may have of HTTP/1.1's connections without much ado. */
const OPTIONS = {
  maxHeaderListPairs: 256,
  maxSessionMemory: 16,
  settings: { maxConcurrentStreams: 128, maxHeaderListSize: 32 << 10, enablePush: false },
};

/** The HTTP/2 side of a server. */
export interface Http2Side {
  /** Connections that the server has, of both versions. */
  readonly connections: Set<Socket>;
  /** Take over a connection that speaks HTTP/2. */
  take(socket: Socket): void;
  /** End all that is open, also what has not said yet which version it speaks. */
  close(): void;
}

/**
 * Make a request of HTTP/2's look like one of HTTP/1.1's: its authority is its host. With a Host header of another name
 * there are two, as with a repeated header.
 */
function likeHttp1(request: Http2ServerRequest): void {
  const { authority, headers } = request;
  const named = headers.host;
  const hosts = [
    ...new Set([authority, named].filter((host) => host !== undefined && host !== "")),
  ];
  headers.host = hosts[0] ?? "";
  Object.defineProperty(request, "headersDistinct", { value: { host: hosts } });
}

/** Serve HTTP/2. @param onRequest gets requests as HTTP/1.1's, without pseudo-headers mattering */
export function http2Side(
  onRequest: (request: IncomingMessage, response: ServerResponse) => void,
): Http2Side {
  const sessions = new Set<Http2Session>();
  const connections = new Set<Socket>();
  const server: Http2Server = createServer(OPTIONS);
  server.on("session", (session) => {
    sessions.add(session);
    session.once("close", () => sessions.delete(session));
    session.on("error", () => session.destroy());
    let streams = 0;
    session.on("stream", (stream) => {
      streams += 1;
      stream.once("close", () => (streams -= 1));
      // Reported to whoever answers it; without this an early reset would end the process.
      stream.on("error", () => undefined);
    });
    session.setTimeout(IDLE_MS, () => {
      if (streams === 0) session.close();
    });
  });
  server.on("request", (request: Http2ServerRequest, response: Http2ServerResponse) => {
    likeHttp1(request);
    // The parts that are used of both are the same.
    onRequest(request as unknown as IncomingMessage, response as unknown as ServerResponse);
  });
  return {
    connections,
    take: (socket) => void server.emit("connection", socket),
    close: () => {
      for (const session of sessions) session.destroy();
      for (const socket of connections) socket.destroy();
    },
  };
}

/** How much of HTTP/2's first word these bytes are: all, none, or not to be told yet. */
function prefaceIn(bytes: Buffer): boolean | undefined {
  const length = Math.min(bytes.length, PREFACE.length);
  if (!bytes.subarray(0, length).equals(PREFACE.subarray(0, length))) return false;
  return length === PREFACE.length ? true : undefined;
}

/** Wait for a connection's first bytes, which stay to be read. @param limitMs after that it is closed */
function sniff(socket: Socket, limitMs: number, decided: (http2: boolean) => void): void {
  const late = setTimeout(() => socket.destroy(), limitMs);
  let held = Buffer.alloc(0);
  const stop = (): void => {
    clearTimeout(late);
    socket.off("readable", look);
    socket.off("close", stop);
    socket.off("error", stop);
  };
  const look = (): void => {
    const bytes = socket.read() as Buffer | null;
    if (bytes === null) return;
    held = Buffer.concat([held, bytes]);
    const http2 = prefaceIn(held);
    if (http2 === undefined) return;
    stop();
    socket.unshift(held);
    decided(http2);
  };
  socket.on("readable", look);
  socket.on("close", stop);
  socket.on("error", stop);
}

/** Whether a connection with TLS has agreed on HTTP/2. */
function agreed(socket: Socket): boolean {
  return "alpnProtocol" in socket && socket.alpnProtocol === "h2";
}

/**
 * Give connections of a server for HTTP/1.1 to the other side where they speak HTTP/2.
 * @param limitMs how long the first bytes may take
 */
export function divide(server: Server, secure: boolean, side: Http2Side, limitMs: number): void {
  const event = secure ? "secureConnection" : "connection";
  const others = server.listeners(event) as ((socket: Socket) => void)[];
  server.removeAllListeners(event);
  const known = (socket: Socket): void => {
    side.connections.add(socket);
    socket.once("close", () => side.connections.delete(socket));
  };
  // With TLS the connection below it, which is there before its handshake.
  server.on("connection", known);
  server.on(event, (socket: Socket) => {
    const decided = (http2: boolean): void => {
      if (http2) side.take(socket);
      else for (const other of others) other.call(server, socket);
    };
    if (secure) decided(agreed(socket));
    else sniff(socket, limitMs, decided);
  });
}

/** What a server with TLS answers a client that offers protocols. @param offers names for which HTTP/2 is spoken */
export function chooseProtocol(offers: (servername: string) => boolean) {
  return ({
    servername,
    protocols,
  }: {
    servername: string;
    protocols: string[];
  }): string | undefined => {
    if (protocols.includes("h2") && offers(servername)) return "h2";
    return protocols.includes("http/1.1") ? "http/1.1" : undefined;
  };
}
