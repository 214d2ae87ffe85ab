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
function framed(stream: OutputNumber, bytes: Buffer, tty: boolean): Buffer {
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

/** Longest that a line is to be copied byte by byte, in bytes; the number fits one. */
const SHORT_LINE = 48;

const NEWLINE = 0x0a;

/** How pieces are cut: as they come, each line by itself, or as many lines together as there are. */
export type Cut = "raw" | "line" | "lines";

/**
 * Gathers pieces, since a write of each line costs more than all else. Without a terminal each line is a piece of its
 * own, as the engine sends what it has logged: docker-py hands pieces out as they come, and its users take them for lines.
 * Clients of which it is known that they join pieces get many lines in one: they would write each piece by itself.
 */
export class FrameBatch {
  private readonly sink: ServerResponse;
  private readonly cut: Cut;
  private buffer = Buffer.allocUnsafe(BATCH);
  private used = 0;
  /** Where the last piece's header is, and of which output it is; 0: there is none that goes on. */
  private open: { at: number; stream: OutputNumber | 0 } = { at: 0, stream: 0 };
  /** Beginnings of lines that have no end yet. */
  private readonly begun: Record<OutputNumber, Buffer> = { 1: Buffer.alloc(0), 2: Buffer.alloc(0) };

  constructor(sink: ServerResponse, cut: Cut) {
    this.sink = sink;
    this.cut = cut;
  }

  /** Add a piece. @returns false when nobody is there any more */
  async add(stream: OutputNumber, bytes: Buffer): Promise<boolean> {
    if (this.cut === "raw") return await this.put(stream, bytes);
    for (let at = 0; at < bytes.length;) {
      const before = this.begun[stream];
      if (before.length === 0 && this.cut === "line") at = this.takeShort(stream, bytes, at);
      if (at === bytes.length) break;
      const newline = this.cut === "line" ? bytes.indexOf(NEWLINE, at) : bytes.lastIndexOf(NEWLINE);
      const end = newline < at ? bytes.length : newline + 1;
      const part = bytes.subarray(at, end);
      const whole = before.length === 0 ? part : Buffer.concat([before, part]);
      const ended = newline >= at;
      at = end;
      if (!ended && whole.length < MAX_LINE) {
        // The bytes are the reader's until the next piece alone.
        this.begun[stream] = whole === part ? Buffer.from(part) : whole;
        continue;
      }
      if (before.length > 0) this.begun[stream] = Buffer.alloc(0);
      if (!(await this.put(stream, whole))) return false;
    }
    return !this.sink.destroyed;
  }

  /**
   * Take the short lines that stand there, as many as there is room for: looked through and copied in one go, since a call
   * out of JavaScript costs more than twenty bytes do.
   * @returns where it has stopped: at a longer line, at one without an end, or for want of room
   */
  private takeShort(stream: OutputNumber, bytes: Buffer, from: number): number {
    const { buffer } = this;
    let { used } = this;
    let at = from;
    while (used <= BATCH - SHORT_LINE - 8) {
      const start = used + 8;
      const until = Math.min(bytes.length, at + SHORT_LINE);
      let next = at;
      let to = start;
      let byte = 0;
      while (next < until && byte !== NEWLINE) {
        byte = bytes[next++] ?? 0;
        buffer[to++] = byte;
      }
      if (byte !== NEWLINE) break;
      buffer[used] = stream;
      buffer[used + 1] = buffer[used + 2] = buffer[used + 3] = 0;
      buffer[used + 4] = buffer[used + 5] = buffer[used + 6] = 0;
      buffer[used + 7] = to - start;
      used = to;
      at = next;
    }
    this.used = used;
    return at;
  }

  private async put(stream: OutputNumber, bytes: Buffer): Promise<boolean> {
    const needed = bytes.length + 8;
    if (this.used + needed > BATCH && !(await this.flush())) return false;
    if (needed > BATCH) return await pushFrame(this.sink, stream, bytes, this.cut === "raw");
    if (this.cut !== "raw") this.head(stream, bytes.length);
    bytes.copy(this.buffer, this.used);
    this.used += bytes.length;
    return true;
  }

  /** A header, or a larger number in the last one. */
  private head(stream: OutputNumber, length: number): void {
    const { open, buffer } = this;
    if (open.stream === stream) {
      buffer.writeUInt32BE(buffer.readUInt32BE(open.at + 4) + length, open.at + 4);
      return;
    }
    if (this.cut === "lines") this.open = { at: this.used, stream };
    buffer.writeUInt32BE(stream * 2 ** 24, this.used);
    buffer.writeUInt32BE(length, this.used + 4);
    this.used += 8;
  }

  /** Send what has come together; a line without an end waits for that. */
  async flush(): Promise<boolean> {
    if (this.used === 0) return !this.sink.destroyed;
    const full = this.buffer.subarray(0, this.used);
    this.buffer = Buffer.allocUnsafe(BATCH);
    this.used = 0;
    this.open = { at: 0, stream: 0 };
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
