/** One connection of SPDY/3.1: streams that its client opens, each a duplex. */
import { Duplex } from "node:stream";
import {
  ControlType,
  FLAG_FIN,
  dataHeader,
  encodeControl,
  encodeNumbers,
  readFrames,
  spdyError,
} from "./frames.ts";
import type { ControlFrame } from "./frames.ts";
import { HeaderBlocks } from "./headers.ts";

/** Most streams that are open at once: two for each forwarded connection. */
const MAX_STREAMS = 512;

/** Most bytes of one data frame. */
const MAX_DATA = 64 << 10;

/** How often the peer is asked for a sign, in milliseconds: what is written tells that it has gone. */
const PING_MS = 5_000;

/** How long a peer has to close its side, in milliseconds. */
const CLOSE_MS = 5_000;

/** Why a stream is ended before its time. */
const Reset = { protocol: 1, refused: 3, cancel: 5 } as const;

const NOTHING = Buffer.alloc(0);

/** One stream; its halves end on their own. */
export class SpdyStream extends Duplex {
  readonly id: number;
  /** What it was opened with; names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  private readonly connection: SpdyConnection;
  private wanted: (() => void) | undefined;
  private peerEnded = false;

  /** Made by {@link SpdyConnection} alone. */
  constructor(connection: SpdyConnection, id: number, headers: Record<string, string>) {
    super({ allowHalfOpen: true });
    this.connection = connection;
    this.id = id;
    this.headers = headers;
    // Whoever uses it listens as well; a peer that has gone must not end the process.
    this.on("error", () => undefined);
  }

  /** Take what the peer has sent; resolves once more is wanted. */
  async accept(bytes: Buffer, last: boolean): Promise<void> {
    if (this.peerEnded || this.destroyed) return;
    const more = bytes.length === 0 || this.push(bytes);
    if (last) {
      this.peerEnded = true;
      this.push(null);
      return;
    }
    if (more) return;
    await new Promise<void>((resolve) => {
      this.wanted = resolve;
    });
  }

  override _read(): void {
    this.release();
  }

  private release(): void {
    const { wanted } = this;
    this.wanted = undefined;
    wanted?.();
  }

  override _write(bytes: Buffer, _encoding: BufferEncoding, done: (error?: Error) => void): void {
    this.connection.sendData(this.id, bytes, false, done);
  }

  override _final(done: (error?: Error) => void): void {
    this.connection.sendData(this.id, NOTHING, true, done);
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.release();
    this.connection.forget(this.id, !(this.peerEnded && this.writableFinished));
    done(error);
  }
}

/** The server's side of a connection. */
export class SpdyConnection {
  /** Resolves when it has gone, however it went. */
  readonly closed: Promise<void>;
  private readonly duplex: Duplex;
  private readonly onStream: (stream: SpdyStream) => void;
  private readonly streams = new Map<number, SpdyStream>();
  private readonly blocks = new HeaderBlocks();
  private newest = 0;
  private pings = 0;

  /**
   * @param duplex agreed upon with the client
   * @param onStream told of each stream that the client opens
   */
  constructor(duplex: Duplex, onStream: (stream: SpdyStream) => void) {
    this.duplex = duplex;
    this.onStream = onStream;
    const ping = setInterval(() => {
      this.send(encodeNumbers(ControlType.ping, (this.pings += 2)));
    }, PING_MS);
    ping.unref();
    duplex.on("error", () => duplex.destroy());
    this.closed = new Promise((resolve) => {
      duplex.once("close", () => {
        clearInterval(ping);
        for (const stream of this.streams.values()) stream.destroy();
        this.blocks.close();
        resolve();
      });
    });
    // What goes wrong with it ends it; there is nobody else to tell.
    this.read()
      .catch(() => undefined)
      .finally(() => duplex.destroy());
  }

  /** End it once what is written has gone out. Streams that are open are over. */
  close(): void {
    if (this.duplex.destroyed) return;
    this.send(encodeNumbers(ControlType.goAway, this.newest, 0));
    this.duplex.end();
    const timer = setTimeout(() => this.duplex.destroy(), CLOSE_MS);
    timer.unref();
    this.duplex.once("close", () => clearTimeout(timer));
  }

  /** Send data of a stream. @param done once the connection takes more */
  sendData(id: number, bytes: Buffer, last: boolean, done: (error?: Error) => void): void {
    const { duplex } = this;
    if (duplex.destroyed || duplex.writableEnded) {
      done(spdyError("The connection has ended."));
      return;
    }
    duplex.cork();
    for (let at = 0; ; at += MAX_DATA) {
      const piece = bytes.subarray(at, at + MAX_DATA);
      const end = at + piece.length >= bytes.length;
      duplex.write(dataHeader(id, piece.length, last && end));
      if (end) {
        duplex.write(piece, (error) => done(error ?? undefined));
        break;
      }
      duplex.write(piece);
    }
    duplex.uncork();
  }

  /** A stream is over. @param early its peer does not know yet */
  forget(id: number, early: boolean): void {
    if (this.streams.delete(id) && early) this.reset(id, Reset.cancel);
  }

  private reset(id: number, status: number): void {
    this.send(encodeNumbers(ControlType.rstStream, id, status));
  }

  private send(bytes: Buffer): void {
    if (!this.duplex.destroyed && !this.duplex.writableEnded) this.duplex.write(bytes);
  }

  private async read(): Promise<void> {
    for await (const frame of readFrames(this.duplex.iterator({ destroyOnReturn: false }))) {
      if (frame.kind === "control") await this.control(frame);
      else await this.streams.get(frame.stream)?.accept(frame.bytes, frame.last);
    }
  }

  private async control({ type, flags, payload }: ControlFrame): Promise<void> {
    if (type === ControlType.synStream) {
      if (payload.length < 10) throw spdyError("A stream begins without a number.");
      const id = payload.readUInt32BE(0) & 0x7fffffff;
      // Also of a stream that is refused: the blocks are one run of packed bytes.
      await this.open(id, await this.blocks.decode(payload.subarray(10)), flags);
    } else if (type === ControlType.rstStream && payload.length >= 4) {
      const stream = this.streams.get(payload.readUInt32BE(0) & 0x7fffffff);
      stream?.destroy(spdyError("The client has ended the stream."));
    } else if (type === ControlType.ping && payload.length >= 4) {
      // Even numbers are answers to our own.
      if (payload.readUInt32BE(0) % 2 === 1) this.send(encodeControl(type, payload));
    }
  }

  private async open(id: number, headers: Record<string, string>, flags: number): Promise<void> {
    if (id <= this.newest || id % 2 === 0) {
      this.reset(id, Reset.protocol);
      return;
    }
    this.newest = id;
    if (this.streams.size >= MAX_STREAMS) {
      this.reset(id, Reset.refused);
      return;
    }
    const number = Buffer.alloc(4);
    number.writeUInt32BE(id);
    const block = await this.blocks.encode({});
    this.send(encodeControl(ControlType.synReply, Buffer.concat([number, block])));
    const stream = new SpdyStream(this, id, headers);
    this.streams.set(id, stream);
    if ((flags & FLAG_FIN) !== 0) await stream.accept(NOTHING, true);
    this.onStream(stream);
  }
}
