/** Frames of a guest stream, as bytes and as values: protocol/README.md section 4. */
import { VmsanError } from "../model/errors.ts";
import { FrameType, MAX_PAYLOAD } from "../model/frames.ts";

export { FrameType, MAX_PAYLOAD };

/** Longest payload of START, which holds a command's arguments and environment. */
export const MAX_START = 8 << 20;
/** Most data bytes in a STDIN, STDOUT or STDERR frame. */
export const MAX_DATA = MAX_PAYLOAD - 8;

/** Numbers of the outputs in ACK, GAP and OUT_EOF; 0 in ACK: everything, the exit included. */
export type OutputNumber = 1 | 2;

/** An error in what the other end sent. */
export function protocolError(why: string): VmsanError {
  return new VmsanError({
    code: "ERR_AGENT_PROTOCOL",
    message: "The guest's agent sent something that makes no sense",
    why,
    fix: "Restart the VM, so that its agent is of this vmsan's version; report it if it comes back.",
  });
}

/** A frame of any type from its payload. */
export function encodeFrame(type: number, payload: Uint8Array): Buffer {
  const frame = Buffer.allocUnsafe(5 + payload.length);
  frame[0] = type;
  frame.writeUInt32BE(payload.length, 1);
  frame.set(payload, 5);
  return frame;
}

/** START, ATTACH, ATTACHED, EXIT or FAIL. */
export function encodeJson(type: number, value: unknown): Buffer {
  const payload = Buffer.from(JSON.stringify(value));
  if (payload.length > maxPayload(type)) {
    throw new VmsanError({
      code: "ERR_AGENT_ARGUMENTS",
      message: `Cannot start the command: its arguments and environment take ${payload.length} bytes`,
      why: `At most ${maxPayload(type)} bytes are sent, and Linux takes about 2 MiB.`,
      fix: "Pass large data on standard input or in a file.",
    });
  }
  return encodeFrame(type, payload);
}

/**
 * The 13 bytes in front of `length` data bytes of a STDIN, STDOUT or STDERR frame; the data
 * is written behind them without being copied.
 */
export function encodeDataHeader(type: number, offset: bigint, length: number): Buffer {
  const header = Buffer.allocUnsafe(13);
  header[0] = type;
  header.writeUInt32BE(8 + length, 1);
  header.writeBigUInt64BE(offset, 5);
  return header;
}

/** A whole STDIN, STDOUT or STDERR frame. */
export function encodeData(type: number, offset: bigint, data: Uint8Array): Buffer {
  return Buffer.concat([encodeDataHeader(type, offset, data.length), data]);
}

/** STDIN_EOF or STDIN_ACK. */
export function encodeOffset(type: number, offset: bigint): Buffer {
  return encodeDataHeader(type, offset, 0);
}

/** RESIZE. */
export function encodeResize(rows: number, cols: number): Buffer {
  const payload = Buffer.allocUnsafe(4);
  payload.writeUInt16BE(rows, 0);
  payload.writeUInt16BE(cols, 2);
  return encodeFrame(FrameType.RESIZE, payload);
}

/** SIGNAL. */
export function encodeSignal(signal: number, tree: boolean): Buffer {
  return encodeFrame(FrameType.SIGNAL, Buffer.from([signal, tree ? 1 : 0]));
}

/** ACK or OUT_EOF. */
export function encodeOutput(type: number, stream: 0 | OutputNumber, offset: bigint): Buffer {
  const payload = Buffer.allocUnsafe(9);
  payload[0] = stream;
  payload.writeBigUInt64BE(offset, 1);
  return encodeFrame(type, payload);
}

/** GAP. */
export function encodeGap(stream: OutputNumber, from: bigint, to: bigint): Buffer {
  const payload = Buffer.allocUnsafe(17);
  payload[0] = stream;
  payload.writeBigUInt64BE(from, 1);
  payload.writeBigUInt64BE(to, 9);
  return encodeFrame(FrameType.GAP, payload);
}

/** Check that a payload is at least as long as its type says; more is a later version's. */
function needBytes(type: number, payload: Uint8Array, length: number): void {
  if (payload.length < length) {
    throw protocolError(`Frame 0x${type.toString(16)} has ${payload.length} bytes, not ${length}.`);
  }
}

/** RESIZE's payload. */
export function decodeResize(payload: Buffer): { rows: number; cols: number } {
  needBytes(FrameType.RESIZE, payload, 4);
  return { rows: payload.readUInt16BE(0), cols: payload.readUInt16BE(2) };
}

/** SIGNAL's payload. */
export function decodeSignal(payload: Buffer): { signal: number; tree: boolean } {
  needBytes(FrameType.SIGNAL, payload, 2);
  return { signal: payload.readUInt8(0), tree: payload[1] === 1 };
}

/** ACK's or OUT_EOF's payload. */
export function decodeOutput(payload: Buffer): { stream: number; offset: bigint } {
  needBytes(FrameType.ACK, payload, 9);
  return { stream: payload.readUInt8(0), offset: payload.readBigUInt64BE(1) };
}

/** STDIN_EOF's or STDIN_ACK's payload. */
export function decodeOffset(payload: Buffer): bigint {
  needBytes(FrameType.STDIN_ACK, payload, 8);
  return payload.readBigUInt64BE(0);
}

/** GAP's payload. */
export function decodeGap(payload: Buffer): { stream: number; from: bigint; to: bigint } {
  needBytes(FrameType.GAP, payload, 17);
  return {
    stream: payload.readUInt8(0),
    from: payload.readBigUInt64BE(1),
    to: payload.readBigUInt64BE(9),
  };
}

/** The value in a JSON payload; an object, nothing more is checked. */
export function decodeJson(type: number, payload: Buffer): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(payload.toString("utf8"));
  } catch {
    // Reported below, like every other thing that is not an object.
    value = undefined;
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw protocolError(`Frame 0x${type.toString(16)} does not hold a JSON object.`);
  }
  return value as Record<string, unknown>;
}

/** Receives what a {@link FrameDecoder} finds. */
export interface FrameHandler {
  /** A whole frame of a type without data. The payload may be kept. */
  frame(type: number, payload: Buffer): void;
  /**
   * A piece of a STDIN, STDOUT or STDERR frame; a frame comes in as many pieces as the
   * transport made of it, each with its own offset. The bytes may be kept.
   */
  data(type: number, offset: bigint, bytes: Buffer): void;
}

/** Longest payload of a frame of this type. */
function maxPayload(type: number): number {
  return type === FrameType.START ? MAX_START : MAX_PAYLOAD;
}

/** Whether a frame of this type is an offset and data. */
function isData(type: number): boolean {
  return type === FrameType.STDIN || type === FrameType.STDOUT || type === FrameType.STDERR;
}

/** Turns the bytes of a transport, cut anywhere, into frames. Data bytes are never copied. */
export class FrameDecoder {
  private readonly handler: FrameHandler;
  /** Bytes of an incomplete header or payload, joined once there are enough. */
  private pending: Buffer[] = [];
  private pendingBytes = 0;
  /** How many pending bytes are needed to go on. */
  private need = 5;
  /** Type of the frame whose header has been read. */
  private type = -1;
  private length = 0;
  /** Data bytes that are still to come, and the offset of the next. */
  private dataLeft = -1;
  private offset = 0n;

  constructor(handler: FrameHandler) {
    this.handler = handler;
  }

  /** True between frames. */
  get idle(): boolean {
    return this.pendingBytes === 0 && this.type === -1;
  }

  /**
   * Take the next bytes.
   * @throws ERR_AGENT_PROTOCOL for a frame that is too long or too short
   */
  push(chunk: Buffer): void {
    let at = 0;
    for (;;) {
      if (this.dataLeft >= 0) {
        const take = Math.min(this.dataLeft, chunk.length - at);
        if (take === 0 && this.dataLeft > 0) return;
        const bytes = chunk.subarray(at, at + take);
        const offset = this.offset;
        const type = this.type;
        at += take;
        this.dataLeft -= take;
        this.offset += BigInt(take);
        if (this.dataLeft === 0) this.nextFrame();
        this.handler.data(type, offset, bytes);
        continue;
      }
      const take = Math.min(this.need - this.pendingBytes, chunk.length - at);
      if (take > 0) this.pending.push(chunk.subarray(at, at + take));
      at += take;
      this.pendingBytes += take;
      if (this.pendingBytes < this.need) return;
      const [first] = this.pending;
      const bytes =
        this.pending.length === 1 && first !== undefined ? first : Buffer.concat(this.pending);
      this.pending = [];
      this.pendingBytes = 0;
      this.take(bytes);
    }
  }

  /** A header, a data frame's offset or a payload is complete. */
  private take(bytes: Buffer): void {
    if (this.type === -1) {
      this.type = bytes.readUInt8(0);
      this.length = bytes.readUInt32BE(1);
      if (this.length > maxPayload(this.type)) {
        throw protocolError(`A frame 0x${this.type.toString(16)} of ${this.length} bytes.`);
      }
      if (isData(this.type) && this.length < 8) {
        throw protocolError(`A data frame of ${this.length} bytes holds no offset.`);
      }
      this.need = isData(this.type) ? 8 : this.length;
    } else if (isData(this.type)) {
      this.offset = bytes.readBigUInt64BE(0);
      this.dataLeft = this.length - 8;
    } else {
      const type = this.type;
      this.nextFrame();
      this.handler.frame(type, bytes);
    }
  }

  /** Wait for a header. */
  private nextFrame(): void {
    this.type = -1;
    this.need = 5;
    this.dataLeft = -1;
  }
}
