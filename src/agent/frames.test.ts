import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  FrameDecoder,
  FrameType,
  MAX_PAYLOAD,
  MAX_START,
  decodeGap,
  decodeJson,
  decodeOffset,
  decodeOutput,
  decodeResize,
  decodeSignal,
  encodeData,
  encodeFrame,
  encodeGap,
  encodeJson,
  encodeOffset,
  encodeOutput,
  encodeResize,
  encodeSignal,
} from "./frames.ts";
import type { OutputNumber } from "./frames.ts";

interface Seen {
  type: number;
  payload: Buffer;
  offset?: bigint;
}

/** Decode, with the pieces of each data frame joined. */
function decode(chunks: Buffer[]): Seen[] {
  const seen: Seen[] = [];
  const decoder = new FrameDecoder({
    frame: (type, payload) => seen.push({ type, payload: Buffer.from(payload) }),
    data: (type, offset, bytes) => {
      const last = seen.at(-1);
      const joins = last?.offset !== undefined && last.type === type;
      if (
        joins &&
        last.offset !== undefined &&
        last.offset + BigInt(last.payload.length) === offset
      ) {
        last.payload = Buffer.concat([last.payload, bytes]);
      } else seen.push({ type, offset, payload: Buffer.from(bytes) });
    },
  });
  for (const chunk of chunks) decoder.push(chunk);
  expect(decoder.idle).toBe(true);
  return seen;
}

interface Vector {
  name: string;
  type: number;
  hex: string;
  json?: unknown;
  offset?: string;
  data?: string;
  rows?: number;
  cols?: number;
  signal?: number;
  tree?: boolean;
  stream?: number;
  from?: string;
  to?: string;
}

const file = resolve(import.meta.dirname, "../../protocol/vectors/frames.json");
const vectors = (JSON.parse(readFileSync(file, "utf8")) as { cases: Vector[] }).cases;

/** The vector's frame, made of its fields. */
function encodeVector(v: Vector): Buffer {
  if (v.json !== undefined) return encodeJson(v.type, v.json);
  if (v.rows !== undefined) return encodeResize(v.rows, v.cols ?? 0);
  if (v.signal !== undefined) return encodeSignal(v.signal, v.tree === true);
  if (v.from !== undefined) {
    return encodeGap(v.stream as OutputNumber, BigInt(v.from), BigInt(v.to ?? ""));
  }
  if (v.stream !== undefined) {
    return encodeOutput(v.type, v.stream as OutputNumber, BigInt(v.offset ?? ""));
  }
  if (v.data !== undefined) {
    return encodeData(v.type, BigInt(v.offset ?? ""), Buffer.from(v.data, "hex"));
  }
  if (v.offset !== undefined) return encodeOffset(v.type, BigInt(v.offset));
  return encodeFrame(v.type, Buffer.alloc(0));
}

/** The vector's fields, read from its frame. */
function decodeVector({ type, payload, offset }: Seen): Partial<Vector> {
  switch (type) {
    case FrameType.STDIN:
    case FrameType.STDOUT:
    case FrameType.STDERR:
      return { offset: String(offset), data: payload.toString("hex") };
    case FrameType.STDIN_EOF:
    case FrameType.STDIN_ACK:
      return { offset: String(decodeOffset(payload)) };
    case FrameType.RESIZE:
      return decodeResize(payload);
    case FrameType.SIGNAL:
      return decodeSignal(payload);
    case FrameType.ACK:
    case FrameType.OUT_EOF: {
      const { stream, offset } = decodeOutput(payload);
      return { stream, offset: String(offset) };
    }
    case FrameType.GAP: {
      const { stream, from, to } = decodeGap(payload);
      return { stream, from: String(from), to: String(to) };
    }
    default:
      return payload.length === 0 ? {} : { json: decodeJson(type, payload) };
  }
}

describe("golden vectors", () => {
  test.each(vectors)("$name", (vector) => {
    const bytes = Buffer.from(vector.hex, "hex");
    expect(encodeVector(vector).toString("hex")).toBe(vector.hex);
    const [frame, ...more] = decode([bytes]);
    expect(more).toEqual([]);
    const { name: _name, hex: _hex, type, ...fields } = vector;
    expect(frame?.type).toBe(type);
    expect(frame === undefined ? {} : decodeVector(frame)).toEqual(fields);
  });
});

const all = Buffer.concat(vectors.map((vector) => Buffer.from(vector.hex, "hex")));

test("the bytes may be cut anywhere", () => {
  const whole = decode([all]);
  expect(whole.length).toBe(vectors.length);
  expect(decode([...all].map((byte) => Buffer.from([byte])))).toEqual(whole);
  fc.assert(
    fc.property(fc.array(fc.nat(all.length), { maxLength: 12 }), (cuts) => {
      const at = [0, ...cuts.sort((a, b) => a - b), all.length];
      const chunks = at.slice(1).map((end, i) => all.subarray(at[i], end));
      expect(decode(chunks)).toEqual(whole);
    }),
  );
});

test("unknown types pass, wrong lengths do not", () => {
  expect(decode([encodeFrame(0x7f, Buffer.from("later"))])[0]?.type).toBe(0x7f);
  const tooLong = Buffer.from([FrameType.EXIT, 0, 0, 0, 0]);
  tooLong.writeUInt32BE(MAX_PAYLOAD + 1, 1);
  expect(() => decode([tooLong])).toThrow(expect.objectContaining({ code: "ERR_AGENT_PROTOCOL" }));
  expect(() => decode([encodeFrame(FrameType.STDOUT, Buffer.alloc(7))])).toThrow();
  expect(() => decodeGap(Buffer.alloc(16))).toThrow();
  expect(() => decodeJson(FrameType.EXIT, Buffer.from("[1]"))).toThrow();
  expect(() => decodeJson(FrameType.EXIT, Buffer.from("{"))).toThrow();
  expect(() => encodeJson(FrameType.START, { a: "x".repeat(MAX_START) })).toThrow(
    expect.objectContaining({ code: "ERR_AGENT_ARGUMENTS" }),
  );
});

test("any bytes either decode or are refused", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 4000 }), (bytes) => {
      const decoder = new FrameDecoder({ frame: () => undefined, data: () => undefined });
      try {
        decoder.push(Buffer.from(bytes));
      } catch (error) {
        expect(error).toMatchObject({ code: "ERR_AGENT_PROTOCOL" });
      }
    }),
  );
});
