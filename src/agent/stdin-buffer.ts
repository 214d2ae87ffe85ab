/** Input of a guest stream: kept until the agent has acknowledged it, sent again when needed. */
import { Writable } from "node:stream";
import { FrameType, MAX_DATA, encodeDataHeader, encodeOffset } from "./frames.ts";
import { protocolError } from "./frames.ts";

/** So far beyond the last acknowledgement input may be sent; the protocol's credit. */
const CREDIT = 1 << 20;
/** Most bytes kept unacknowledged before the writer has to wait: more than can be sent. */
const MAX_UNACKNOWLEDGED = 2 << 20;

/** Where frames go: one connection's request body. */
export interface FrameSink {
  /** False: wait for {@link StdinBuffer.drained} before sending more. */
  write(header: Buffer, data?: Buffer): boolean;
}

/** The unacknowledged input and what of it has been sent on the present connection. */
export class StdinBuffer {
  /** The user's end. */
  readonly writable: Writable;
  private chunks: Buffer[] = [];
  /** Offset of the first byte in `chunks`. */
  private start = 0;
  /** Offset behind the last byte in `chunks`. */
  private end = 0;
  private ended = false;
  /** Offset of the next byte to be sent on this connection. */
  private sent = 0;
  private eofSent = false;
  /** The connection has asked to wait. */
  private full = false;
  private sink: FrameSink | undefined;
  private waiting: (() => void) | undefined;

  private readonly shared: boolean;

  /** @param shared other clients may type too: the agent may count more input than ours */
  constructor(shared: boolean) {
    this.shared = shared;
    this.writable = new Writable({
      highWaterMark: MAX_DATA,
      decodeStrings: true,
      write: (chunk: Buffer, _encoding, done) => {
        this.add(chunk);
        this.afterAdd(done);
      },
      writev: (items, done) => {
        for (const { chunk } of items as { chunk: Buffer }[]) this.add(chunk);
        this.afterAdd(done);
      },
      final: (done) => {
        this.ended = true;
        this.pump();
        done();
      },
    });
    // A write that comes after the command's end fails; its status tells, not this stream.
    this.writable.on("error", () => undefined);
  }

  /** Bytes kept. */
  get unacknowledged(): number {
    return this.end - this.start;
  }

  /** Offset of the first byte that is kept. */
  get acknowledged(): number {
    return this.start;
  }

  /** Count offsets from `base`: this client is not the stream's first. */
  rebase(base: number): void {
    this.start += base;
    this.end += base;
    this.sent += base;
  }

  /** Send on this connection, from the first byte that the agent has not got. */
  connect(sink: FrameSink, from: number): void {
    this.acknowledge(from);
    this.sink = sink;
    this.full = false;
    this.sent = this.start;
    this.eofSent = false;
    this.pump();
  }

  /** The connection is gone. */
  disconnect(): void {
    this.sink = undefined;
  }

  /** Everything before `offset` has arrived. */
  acknowledge(offset: number): void {
    if (offset > this.end) {
      if (!this.shared) throw protocolError("The agent acknowledges input that was never sent.");
      // Another client has typed: what we type next comes behind that.
      this.chunks = [];
      this.rebase(offset - this.end);
      this.start = this.end;
    }
    while (this.start < offset) {
      const first = this.chunks[0];
      if (first === undefined) break;
      const drop = Math.min(first.length, offset - this.start);
      if (drop === first.length) this.chunks.shift();
      else this.chunks[0] = first.subarray(drop);
      this.start += drop;
    }
    if (this.sent < this.start) this.sent = this.start;
    if (this.unacknowledged < MAX_UNACKNOWLEDGED) this.release();
    if (!this.full) this.pump();
  }

  /** Nothing is read any more: let writers go. */
  close(): void {
    this.sink = undefined;
    this.chunks = [];
    this.start = this.end;
    this.release();
    if (!this.writable.writableFinished) this.writable.destroy();
  }

  /** The connection has room again. */
  drained(): void {
    this.full = false;
    this.pump();
  }

  /** Send as much as the connection and the credit take. */
  private pump(): void {
    if (this.sink === undefined || this.full) return;
    const limit = this.start + CREDIT;
    let at = this.start;
    for (const chunk of this.chunks) {
      const chunkEnd = at + chunk.length;
      while (this.sent < chunkEnd) {
        const length = Math.min(MAX_DATA, limit - this.sent);
        if (length === 0) return;
        const data = chunk.subarray(this.sent - at, this.sent - at + length);
        const header = encodeDataHeader(FrameType.STDIN, BigInt(this.sent), data.length);
        this.sent += data.length;
        this.full = !this.sink.write(header, data);
        if (this.full) return;
      }
      at = chunkEnd;
    }
    if (this.ended && !this.eofSent) {
      this.eofSent = true;
      this.sink.write(encodeOffset(FrameType.STDIN_EOF, BigInt(this.end)));
    }
  }

  private add(chunk: Buffer): void {
    if (chunk.length === 0) return;
    this.chunks.push(chunk);
    this.end += chunk.length;
  }

  private afterAdd(done: () => void): void {
    this.pump();
    if (this.unacknowledged < MAX_UNACKNOWLEDGED) done();
    else this.waiting = done;
  }

  private release(): void {
    const waiting = this.waiting;
    this.waiting = undefined;
    waiting?.();
  }
}
