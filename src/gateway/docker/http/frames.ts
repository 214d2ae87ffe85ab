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

/** Gathers pieces, since a write of each line costs more than all else. */
export class FrameBatch {
  private readonly sink: ServerResponse;
  private readonly tty: boolean;
  private buffer = Buffer.allocUnsafe(BATCH);
  private used = 0;

  constructor(sink: ServerResponse, tty: boolean) {
    this.sink = sink;
    this.tty = tty;
  }

  /** Add a piece. @returns false when nobody is there any more */
  async add(stream: OutputNumber, bytes: Buffer): Promise<boolean> {
    const needed = bytes.length + 8;
    if (this.used + needed > BATCH && !(await this.flush())) return false;
    if (needed > BATCH) return await pushFrame(this.sink, stream, bytes, this.tty);
    if (!this.tty) {
      this.buffer.writeUInt32BE(stream * 2 ** 24, this.used);
      this.buffer.writeUInt32BE(bytes.length, this.used + 4);
      this.used += 8;
    }
    bytes.copy(this.buffer, this.used);
    this.used += bytes.length;
    return true;
  }

  /** Send what has come together. */
  async flush(): Promise<boolean> {
    if (this.used === 0) return !this.sink.destroyed;
    const full = this.buffer.subarray(0, this.used);
    this.buffer = Buffer.allocUnsafe(BATCH);
    this.used = 0;
    return await push(this.sink, full);
  }
}
