/**
 * spdy/: SPDY/3.1 as Kubernetes' clients speak it when they run commands and forward ports: the server's side, without
 * flow control for each stream, which they do not have either (the connection's own holds them back). Written here
 * since the one npm package (spdy-transport) is not kept up and refuses streams that have no method and path,
 * as all of these are.
 *
 * frames.ts: bytes ↔ frames; pure but for what it reads.
 */
import { VmsanError } from "../../../model/errors.ts";

/** Types of control frames; others are ignored. */
export const ControlType = {
  synStream: 1,
  synReply: 2,
  rstStream: 3,
  ping: 6,
  goAway: 7,
} as const;

/** Flag of a frame behind which its sender sends nothing more on the stream. */
export const FLAG_FIN = 1;

/** Bits of the first word of a control frame: that it is one, and version 3. */
const CONTROL = 0x8003;

/** Most bytes of a control frame's content: headers are few and short. */
const MAX_CONTROL = 64 << 10;

/** A control frame, whole. */
export interface ControlFrame {
  kind: "control";
  type: number;
  flags: number;
  payload: Buffer;
}

/** Data of a stream, or a part of it. */
export interface DataPiece {
  kind: "data";
  stream: number;
  bytes: Buffer;
  /** The last that this stream's sender sends. */
  last: boolean;
}

/** What went wrong with the bytes of a connection. */
export function spdyError(why: string): VmsanError {
  return new VmsanError({
    code: "ERR_NODE_SPDY",
    message: "A connection that speaks SPDY/3.1 is not usable",
    why,
    fix: "Use kubectl, or another client of Kubernetes.",
  });
}

/** A control frame as bytes. */
export function encodeControl(type: number, payload: Buffer, flags = 0): Buffer {
  const header = Buffer.alloc(8);
  header.writeUInt16BE(CONTROL, 0);
  header.writeUInt16BE(type, 2);
  header.writeUInt32BE(flags * 2 ** 24 + payload.length, 4);
  return Buffer.concat([header, payload]);
}

/** A control frame of 32-bit numbers. */
export function encodeNumbers(type: number, ...numbers: number[]): Buffer {
  const payload = Buffer.alloc(4 * numbers.length);
  numbers.forEach((number, index) => payload.writeUInt32BE(number, 4 * index));
  return encodeControl(type, payload);
}

/** What stands before a stream's data. @param length below 16 MiB */
export function dataHeader(stream: number, length: number, last: boolean): Buffer {
  const header = Buffer.alloc(8);
  header.writeUInt32BE(stream, 0);
  header.writeUInt32BE((last ? FLAG_FIN : 0) * 2 ** 24 + length, 4);
  return header;
}

/**
 * The frames of a connection; data comes in pieces, as it arrives. Ends with the connection, also within a frame.
 * @throws ERR_NODE_SPDY
 */
export async function* readFrames(
  source: AsyncIterable<Buffer>,
): AsyncGenerator<ControlFrame | DataPiece> {
  let pending: Buffer = Buffer.alloc(0);
  /** Of the data frame that has begun. */
  let open: { stream: number; left: number; last: boolean } | undefined;
  for await (const chunk of source) {
    pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk]);
    for (;;) {
      if (open !== undefined) {
        const bytes = pending.subarray(0, open.left);
        pending = pending.subarray(bytes.length);
        open.left -= bytes.length;
        const { stream, left, last } = open;
        yield { kind: "data", stream, bytes, last: last && left === 0 };
        if (left > 0) break;
        open = undefined;
      }
      if (pending.length < 8) break;
      const word = pending.readUInt32BE(4);
      const flags = Math.floor(word / 2 ** 24);
      const length = word % 2 ** 24;
      const first = pending.readUInt16BE(0);
      if ((first & 0x8000) === 0) {
        const stream = pending.readUInt32BE(0);
        open = { stream, left: length, last: (flags & FLAG_FIN) !== 0 };
        pending = pending.subarray(8);
        continue;
      }
      if (first !== CONTROL) throw spdyError(`It is version ${first & 0x7fff}, not 3.`);
      if (length > MAX_CONTROL) throw spdyError(`A control frame has ${length} bytes.`);
      if (pending.length < 8 + length) break;
      const type = pending.readUInt16BE(2);
      const payload = pending.subarray(8, 8 + length);
      pending = pending.subarray(8 + length);
      yield { kind: "control", type, flags, payload };
    }
  }
}
