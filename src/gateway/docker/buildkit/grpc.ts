/** Calls of gRPC over HTTP/2 on connections that are there already: served on one, made on another. */
import { connect, constants, performServerHandshake } from "node:http2";
import type { ClientHttp2Session, IncomingHttpHeaders, ServerHttp2Stream } from "node:http2";
import type { Duplex } from "node:stream";
import { DockerError, asDockerError } from "../errors.ts";

/** Most bytes of one message, as clients limit them too. */
const MAX_MESSAGE = 16 << 20;
/** Bytes that may be under way unread. */
const WINDOW = 4 << 20;

/** Statuses of gRPC that mean something here. */
const OK = 0;
const UNKNOWN = 2;
const NOT_FOUND = 5;
const UNIMPLEMENTED = 12;

/** A message with its head. */
function framed(message: Buffer): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

/** Messages of a stream, as they come. @throws 400 for what is none, or too long */
export async function* messagesOf(stream: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let pending: Buffer = Buffer.alloc(0);
  for await (const chunk of stream) {
    pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk]);
    while (pending.length >= 5) {
      const length = pending.readUInt32BE(1);
      if (pending[0] !== 0 || length > MAX_MESSAGE) {
        throw new DockerError(400, "a message that is compressed or too long");
      }
      if (pending.length < 5 + length) break;
      yield pending.subarray(5, 5 + length);
      pending = pending.subarray(5 + length);
    }
  }
}

/** A call that is served. */
export interface GrpcCall {
  request: Buffer;
  headers: IncomingHttpHeaders;
  /** Aborts when the client gives it up. */
  signal: AbortSignal;
  /** Send a message; the answer of a call that has one is what its method returns. */
  send: (message: Buffer) => void;
}

/** Methods by their paths; what they return is sent as the last message. */
export type GrpcMethods = Record<string, (call: GrpcCall) => Promise<Buffer | undefined>>;

/** Serve one call. */
async function serveCall(
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders,
  methods: GrpcMethods,
): Promise<void> {
  let status = OK;
  let message = "";
  const abort = new AbortController();
  stream.once("aborted", () => abort.abort(new DockerError(499, "the client went away")));
  stream.on("error", () => abort.abort(new DockerError(499, "the connection broke")));
  stream.once("wantTrailers", () => {
    stream.sendTrailers({
      "grpc-status": String(status),
      ...(message === "" ? {} : { "grpc-message": encodeURIComponent(message) }),
    });
  });
  stream.respond(
    { ":status": 200, "content-type": "application/grpc+proto" },
    { waitForTrailers: true },
  );
  const send = (bytes: Buffer): void => {
    if (!stream.destroyed && !stream.writableEnded) stream.write(framed(bytes));
  };
  const path = headers[":path"] ?? "";
  const method = Object.hasOwn(methods, path) ? methods[path] : undefined;
  try {
    if (method === undefined) {
      status = UNIMPLEMENTED;
      message = `vmsan has no ${path.slice(0, 200)}`;
    } else {
      const first = await messagesOf(stream as AsyncIterable<Buffer>).next();
      const request = first.done === true ? Buffer.alloc(0) : first.value;
      const answer = await method({ request, headers, signal: abort.signal, send });
      if (answer !== undefined) send(answer);
    }
  } catch (error) {
    const known = asDockerError(error);
    status = known.status === 404 ? NOT_FOUND : known.status === 501 ? UNIMPLEMENTED : UNKNOWN;
    ({ message } = known);
  }
  if (!stream.destroyed) stream.end();
}

/** Serve methods on a connection until it ends. */
export async function serveGrpc(socket: Duplex, methods: GrpcMethods): Promise<void> {
  const session = performServerHandshake(socket, { settings: { initialWindowSize: WINDOW } });
  session.on("error", () => session.destroy());
  session.on("stream", (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => {
    void serveCall(stream, headers, methods);
  });
  await new Promise<void>((resolve) => session.once("close", () => resolve()));
}

/** A connection on which the other side serves. */
export class GrpcPeer {
  private readonly session: ClientHttp2Session;

  constructor(socket: Duplex) {
    this.session = connect("http://session", {
      createConnection: () => socket,
      settings: { initialWindowSize: WINDOW },
    });
    this.session.on("connect", () => this.session.setLocalWindowSize(WINDOW * 4));
    this.session.on("error", () => this.session.destroy());
  }

  /** Resolves when the connection has ended. */
  async closed(): Promise<void> {
    if (this.session.closed || this.session.destroyed) return;
    await new Promise<void>((resolve) => this.session.once("close", () => resolve()));
  }

  /**
   * Begin a call.
   * @param metadata headers besides; several values of one are sent as several
   * @returns its messages as they come, how to send one, and how to end the sending
   */
  call(
    path: string,
    metadata: Record<string, string | string[]>,
    signal: AbortSignal,
  ): {
    messages: AsyncGenerator<Buffer>;
    send: (message: Buffer) => void;
    end: () => void;
    cancel: () => void;
  } {
    const stream = this.session.request(
      {
        ":method": "POST",
        ":path": path,
        "content-type": "application/grpc+proto",
        te: "trailers",
        ...metadata,
      },
      { signal },
    );
    let failure = "";
    stream.on("trailers", (trailers: IncomingHttpHeaders) => {
      const status = trailers["grpc-status"];
      if (status !== undefined && status !== "0") failure = said(trailers);
    });
    stream.on("response", (headers: IncomingHttpHeaders) => {
      // An answer without a body has its status here.
      const status = headers["grpc-status"];
      if (status !== undefined && status !== "0") failure = said(headers);
    });
    const messages = (async function* all(): AsyncGenerator<Buffer> {
      yield* messagesOf(stream as AsyncIterable<Buffer>);
      if (failure !== "") throw new DockerError(400, failure);
    })();
    return {
      messages,
      send: (message) => void stream.write(framed(message)),
      end: () => void stream.end(),
      cancel: () => stream.close(constants.NGHTTP2_CANCEL),
    };
  }

  /** One message there, one back. @throws what the other side says */
  async ask(path: string, message: Buffer, signal: AbortSignal): Promise<Buffer> {
    const call = this.call(path, {}, signal);
    call.send(message);
    call.end();
    let answer: Buffer = Buffer.alloc(0);
    for await (const one of call.messages) answer = one;
    return answer;
  }
}

/** What trailers say went wrong. */
function said(trailers: IncomingHttpHeaders): string {
  const text = String(trailers["grpc-message"] ?? "the client refused");
  try {
    return decodeURIComponent(text);
  } catch {
    // Not encoded, as some do.
    return text;
  }
}
