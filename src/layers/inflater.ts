/**
 * Synchronous streaming decompression into a buffer of the caller's.
 *
 * Node's zlib streams cost a fifth of the time in chunk handling and events; what they are built on
 * can decompress straight into shared memory. That is an inner interface of Node, so it is looked at
 * before use, pinned by a test, and where it is different the public streams do the work
 * (inflate-worker.ts).
 */
import { constants, createGunzip, createZstdDecompress } from "node:zlib";
import type { Compression } from "../model/image.ts";

/** One step's outcome. */
export interface Inflated {
  /** Bytes of input taken. */
  consumed: number;
  /** Bytes of output given. */
  produced: number;
}

/** A decompressor that works in steps. */
export interface Inflater {
  /**
   * Decompress from `input[from … to−1]` into `output[at …]`. Throws on bad data, and when `last`
   * says that no more input comes although there should.
   */
  step(
    input: Uint8Array,
    from: number,
    to: number,
    output: Uint8Array,
    at: number,
    last: boolean,
  ): Inflated;
  close(): void;
}

/** The part of a zlib stream's inner handle that is used here. */
interface Handle {
  writeSync(
    flush: number,
    input: Uint8Array,
    inputOffset: number,
    inputLength: number,
    output: Uint8Array,
    outputOffset: number,
    outputLength: number,
  ): void;
  onerror: (message: string, errno: number, code: string) => void;
  close(): void;
}

/** The handle and its state words (output left, input left) of a zlib stream, if they are as known. */
function innerOf(stream: object): { handle: Handle; state: Uint32Array } | undefined {
  const handle: unknown = Reflect.get(stream, "_handle");
  const state: unknown = Reflect.get(stream, "_writeState");
  if (typeof handle !== "object" || handle === null || !(state instanceof Uint32Array)) {
    return undefined;
  }
  if (typeof Reflect.get(handle, "writeSync") !== "function" || state.length < 2) return undefined;
  return { handle: handle as Handle, state };
}

/** No decompression: bytes are copied. */
const copier: Inflater = {
  step(input, from, to, output, at) {
    const count = Math.min(to - from, output.length - at);
    output.set(input.subarray(from, from + count), at);
    return { consumed: count, produced: count };
  },
  close() {
    // Holds nothing.
  },
};

/** A synchronous decompressor, or undefined where this Node has none. */
export function createInflater(compression: Compression): Inflater | undefined {
  if (compression === "none") return copier;
  const stream =
    compression === "gzip"
      ? createGunzip({ chunkSize: 65_536 })
      : createZstdDecompress({ chunkSize: 65_536 });
  const inner = innerOf(stream);
  if (inner === undefined) return undefined;
  const { handle, state } = inner;
  // Only zlib looks at it when decompressing.
  const more = compression === "gzip" ? constants.Z_NO_FLUSH : constants.ZSTD_e_continue;
  const finish = compression === "gzip" ? constants.Z_FINISH : constants.ZSTD_e_continue;
  let failure: string | undefined;
  // oxlint-disable-next-line unicorn/prefer-add-event-listener -- the handle is no event target
  handle.onerror = (message, _errno, code) => {
    failure = `${message} (${code})`;
  };
  return {
    step(input, from, to, output, at, last) {
      const room = output.length - at;
      handle.writeSync(last ? finish : more, input, from, to - from, output, at, room);
      if (failure !== undefined) throw new Error(failure);
      return { produced: room - (state[0] ?? 0), consumed: to - from - (state[1] ?? 0) };
    },
    close: () => handle.close(),
  };
}
