/** Frames of a guest stream in a browser: protocol/README.md section 4; Node's own are in src/agent/frames.ts. */
import { FrameType, MAX_PAYLOAD } from "../../model/frames.ts";

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** A frame of any type. */
export function encodeFrame(type: number, payload: Uint8Array): Uint8Array<ArrayBuffer> {
  const frame = new Uint8Array(5 + payload.length);
  frame[0] = type;
  new DataView(frame.buffer).setUint32(1, payload.length);
  frame.set(payload, 5);
  return frame;
}

/** START or ATTACH. */
export function encodeJson(type: number, value: unknown): Uint8Array<ArrayBuffer> {
  return encodeFrame(type, encoder.encode(JSON.stringify(value)));
}

/** STDIN: bytes of the input from an offset on. */
export function encodeInput(offset: number, bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const payload = new Uint8Array(8 + bytes.length);
  new DataView(payload.buffer).setBigUint64(0, BigInt(offset));
  payload.set(bytes, 8);
  return encodeFrame(FrameType.STDIN, payload);
}

/** RESIZE. */
export function encodeResize(rows: number, cols: number): Uint8Array<ArrayBuffer> {
  const payload = new Uint8Array(4);
  const view = new DataView(payload.buffer);
  view.setUint16(0, rows);
  view.setUint16(2, cols);
  return encodeFrame(FrameType.RESIZE, payload);
}

/** ACK of an output; output 0: the exit has been seen. */
export function encodeAck(output: 0 | 1 | 2, offset: number): Uint8Array<ArrayBuffer> {
  const payload = new Uint8Array(9);
  payload[0] = output;
  new DataView(payload.buffer).setBigUint64(1, BigInt(offset));
  return encodeFrame(FrameType.ACK, payload);
}

/** SIGNAL. @param tree to all that the command has started */
export function encodeSignal(signal: number, tree: boolean): Uint8Array<ArrayBuffer> {
  return encodeFrame(FrameType.SIGNAL, Uint8Array.of(signal, tree ? 1 : 0));
}

/** A frame's payload with numbers and text in it. */
export class Payload {
  readonly bytes: Uint8Array;
  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }

  /** An offset; safe as a number: nobody prints 8 PB. */
  offset(at: number): number {
    const { buffer, byteOffset } = this.bytes;
    return Number(new DataView(buffer, byteOffset).getBigUint64(at));
  }

  /** The JSON object that it is. */
  json(): Record<string, unknown> {
    const value: unknown = JSON.parse(decoder.decode(this.bytes));
    if (typeof value === "object" && value !== null) return value as Record<string, unknown>;
    throw new Error("a frame holds no object");
  }
}

/** Turns bytes that were cut anywhere into frames. */
export class FrameReader {
  private pending = new Uint8Array();

  /** Take the next bytes; gives the frames that are whole by now. */
  *read(chunk: Uint8Array): Generator<{ type: number; payload: Payload }> {
    let bytes = chunk;
    if (this.pending.length > 0) {
      bytes = new Uint8Array(this.pending.length + chunk.length);
      bytes.set(this.pending);
      bytes.set(chunk, this.pending.length);
    }
    let at = 0;
    while (bytes.length - at >= 5) {
      const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(at + 1);
      if (length > MAX_PAYLOAD) throw new Error(`a frame of ${length} bytes`);
      if (bytes.length - at < 5 + length) break;
      const payload = new Payload(bytes.subarray(at + 5, at + 5 + length));
      yield { type: bytes[at] ?? 0, payload };
      at += 5 + length;
    }
    this.pending = bytes.slice(at);
  }
}
