/** Two outputs on one connection: eight bytes before each piece say which and how long. */
import type { ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import type { OutputNumber } from "../../../agent/frames.ts";
import { push } from "./wire.ts";

/** What stands before a piece. @param length bytes */
function frameHeader(stream: OutputNumber, length: number): Buffer {
  const header = Buffer.alloc(8);
  header[0] = stream;
  header.writeUInt32BE(length, 4);
  return header;
}

/** A piece as it travels: with a header, or as it is where there is a terminal. */
export function framed(stream: OutputNumber, bytes: Buffer, tty: boolean): Buffer {
  return tty ? bytes : Buffer.concat([frameHeader(stream, bytes.length), bytes]);
}

/** Send a piece; false when nobody is there any more. */
export async function pushFrame(
  sink: Duplex | ServerResponse,
  stream: OutputNumber,
  bytes: Buffer,
  tty: boolean,
): Promise<boolean> {
  return await push(sink, framed(stream, bytes, tty));
}

/** Where nothing is sent before so many bytes have come together. */
const BATCH = 256 << 10;

/** Longest that a line waits for its end, in bytes. */
const MAX_LINE = 16 << 10;

const NEWLINE = 0x0a;

/**
 * Gathers pieces, since a write of each line costs more than all else. Without a terminal each line is a piece of its
 * own, as the engine sends what it has logged: docker-py hands pieces out as they come, and its users take them for lines.
 */
export class FrameBatch {
  private readonly sink: ServerResponse;
  private readonly tty: boolean;
  private buffer = Buffer.allocUnsafe(BATCH);
  private used = 0;
  /** Beginnings of lines that have no end yet. */
  private readonly begun: Record<OutputNumber, Buffer> = { 1: Buffer.alloc(0), 2: Buffer.alloc(0) };

  constructor(sink: ServerResponse, tty: boolean) {
    this.sink = sink;
    this.tty = tty;
  }

  /** Add a piece. @returns false when nobody is there any more */
  async add(stream: OutputNumber, bytes: Buffer): Promise<boolean> {
    if (this.tty) return await this.put(stream, bytes);
    for (let at = 0; at < bytes.length;) {
      const newline = bytes.indexOf(NEWLINE, at);
      const end = newline < 0 ? bytes.length : newline + 1;
      const before = this.begun[stream];
      const part = bytes.subarray(at, end);
      at = end;
      const line = before.length === 0 ? part : Buffer.concat([before, part]);
      if (newline < 0 && line.length < MAX_LINE) {
        // The bytes are the reader's until the next piece alone.
        this.begun[stream] = line === part ? Buffer.from(part) : line;
        continue;
      }
      if (before.length > 0) this.begun[stream] = Buffer.alloc(0);
      if (line.length + 8 <= BATCH - this.used) this.copy(stream, line);
      else if (!(await this.put(stream, line))) return false;
    }
    return !this.sink.destroyed;
  }

  private async put(stream: OutputNumber, bytes: Buffer): Promise<boolean> {
    const needed = bytes.length + 8;
    if (this.used + needed > BATCH && !(await this.flush())) return false;
    if (needed > BATCH) return await pushFrame(this.sink, stream, bytes, this.tty);
    this.copy(stream, bytes);
    return true;
  }

  private copy(stream: OutputNumber, bytes: Buffer): void {
    if (!this.tty) {
      this.buffer.writeUInt32BE(stream * 2 ** 24, this.used);
      this.buffer.writeUInt32BE(bytes.length, this.used + 4);
      this.used += 8;
    }
    bytes.copy(this.buffer, this.used);
    this.used += bytes.length;
  }

  /** Send what has come together; a line without an end waits for that. */
  async flush(): Promise<boolean> {
    if (this.used === 0) return !this.sink.destroyed;
    const full = this.buffer.subarray(0, this.used);
    this.buffer = Buffer.allocUnsafe(BATCH);
    this.used = 0;
    return await push(this.sink, full);
  }

  /** Send all of it: nothing follows. */
  async end(): Promise<void> {
    for (const stream of [1, 2] as const) {
      const line = this.begun[stream];
      if (line.length > 0 && !(await this.put(stream, line))) return;
    }
    await this.flush();
  }
}
