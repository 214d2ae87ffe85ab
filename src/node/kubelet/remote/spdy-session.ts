/** Sessions by SPDY/3.1: a stream each for input, outputs, sizes and the end. */
import type { Duplex } from "node:stream";
import type { Readable } from "node:stream";
import type { OutputNumber } from "../../../agent/frames.ts";
import { SpdyConnection } from "../spdy/connection.ts";
import type { SpdyStream } from "../spdy/connection.ts";
import { spdyError } from "../spdy/frames.ts";
import { Sizes } from "./session.ts";
import type { RemoteSession, SessionWish } from "./session.ts";

/** Versions that are spoken; they differ in nothing here. Older ones cannot tell a status. */
export const SPDY_VERSIONS: readonly string[] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];

/** How long a client may take to open its streams, in milliseconds. */
const OPEN_MS = 30_000;

/** Longest of a size. */
const MAX_SIZE = 1_024;

class SpdySession implements RemoteSession {
  readonly stdin: Readable | undefined;
  readonly gone: AbortSignal;
  private readonly connection: SpdyConnection;
  private readonly streams: ReadonlyMap<string, SpdyStream>;
  private readonly sizes = new Sizes();

  constructor(connection: SpdyConnection, streams: ReadonlyMap<string, SpdyStream>) {
    this.connection = connection;
    this.streams = streams;
    this.stdin = streams.get("stdin");
    const left = new AbortController();
    this.gone = left.signal;
    void connection.closed.then(() => left.abort(new Error("the client has gone")));
    // Clients end their half of streams that they only read.
    for (const name of ["error", "stdout", "stderr"]) streams.get(name)?.resume();
    streams.get("resize")?.on("data", (bytes: Buffer) => this.takeSizes(bytes));
  }

  /** Each size is one JSON document, and comes in a frame of its own. */
  private takeSizes(bytes: Buffer): void {
    if (bytes.length > MAX_SIZE) return;
    for (const line of bytes.toString("utf8").split("\n")) this.sizes.accept(Buffer.from(line));
  }

  async output(stream: OutputNumber, bytes: Buffer): Promise<void> {
    await this.write(stream === 1 ? "stdout" : "stderr", bytes);
  }

  private async write(name: string, bytes: Buffer): Promise<void> {
    const stream = this.streams.get(name);
    if (stream === undefined || !stream.writable) return;
    // A client that has gone is told of by the connection's end.
    await new Promise<void>((resolve) => stream.write(bytes, () => resolve()));
  }

  onResize(take: (rows: number, cols: number) => void): void {
    this.sizes.onResize(take);
  }

  async end(status: object): Promise<void> {
    await this.write("error", Buffer.from(JSON.stringify(status)));
    for (const name of ["stdout", "stderr", "error"]) this.streams.get(name)?.end();
    this.connection.close();
    await this.connection.closed;
  }
}

/** The streams that a client is going to open. */
function expected(wish: SessionWish): string[] {
  return [
    "error",
    ...(wish.stdin ? ["stdin"] : []),
    ...(wish.stdout ? ["stdout"] : []),
    ...(wish.stderr && !wish.tty ? ["stderr"] : []),
    ...(wish.tty ? ["resize"] : []),
  ];
}

/** A session on a connection that has been agreed upon. @throws ERR_NODE_SPDY when its streams do not come */
export async function spdySession(duplex: Duplex, wish: SessionWish): Promise<RemoteSession> {
  const names = expected(wish);
  const streams = new Map<string, SpdyStream>();
  let all: () => void = () => undefined;
  const complete = new Promise<void>((resolve) => (all = resolve));
  const connection = new SpdyConnection(duplex, (stream) => {
    const name = stream.headers["streamtype"] ?? "";
    if (!names.includes(name) || streams.has(name)) {
      stream.destroy();
      return;
    }
    streams.set(name, stream);
    if (streams.size === names.length) all();
  });
  const late = new Promise<never>((_resolve, reject) => {
    const fail = (why: string): void => reject(spdyError(why));
    const timer = setTimeout(() => fail("Its streams did not come in time."), OPEN_MS);
    void complete.then(() => clearTimeout(timer));
    void connection.closed.then(() => {
      clearTimeout(timer);
      fail("It ended before its streams had come.");
    });
  });
  try {
    await Promise.race([complete, late]);
  } catch (error) {
    connection.close();
    throw error;
  }
  return new SpdySession(connection, streams);
}
