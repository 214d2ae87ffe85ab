/**
 * Streaming decompression of whole blobs with Node's public streams: gzip with several members, zstd with several
 * frames and skippable ones between them.
 *
 * Node's own zstd stream ends silently after the first frame, so the frames are told apart
 * here (RFC 8878, section 3) and each gets a stream of its own.
 */
import type { Transform } from "node:stream";
import type { Compression } from "../../model/image.ts";

/** Takes decompressed bytes; a promise holds back the next piece. */
export type ByteSink = (bytes: Buffer) => void | Promise<void>;

/** Takes compressed bytes piece by piece, then the end. */
export interface Inflater {
  write(bytes: Uint8Array): Promise<void>;
  end(): Promise<void>;
}

/** Feed one of zlib's streams and hand on what comes out. */
function drive(stream: Transform, sink: ByteSink): Inflater {
  let failure: Error | undefined;
  let failed: (error: Error) => void = () => undefined;
  stream.on("error", (error) => {
    failure ??= error;
    failed(error);
  });
  stream.on("data", (bytes: Buffer) => {
    const wait = sink(bytes);
    if (wait === undefined) return;
    stream.pause();
    wait.then(
      () => stream.resume(),
      (error: Error) => stream.destroy(error),
    );
  });
  // zlib ends a stream, without a word to who is writing, at zeros behind the last gzip member.
  let ended = false;
  let finished: () => void = () => undefined;
  stream.on("end", () => {
    ended = true;
    finished();
  });
  const settle = async (begin: (done: (error?: Error | null) => void) => void): Promise<void> => {
    if (failure !== undefined) throw failure;
    if (ended) return;
    await new Promise<void>((resolve, reject) => {
      failed = reject;
      finished = resolve;
      begin((error) => {
        if (error === undefined || error === null) resolve();
        else reject(failure ?? error);
      });
    });
  };
  return {
    write: async (bytes) => settle((done) => stream.write(bytes, done)),
    end: async () => settle(() => stream.end()),
  };
}

/** A piece of a zstd frame, or its end. */
type FramePart = Uint8Array | "end";

/** What the next bytes of a zstd stream are. */
type FrameState =
  | "magic"
  | "skipSize"
  | "skip"
  | "descriptor"
  | "fields"
  | "block"
  | "data"
  | "checksum";

/** Tells where zstd frames begin and end without decompressing them. */
class FrameSplitter {
  /** Bytes of a header that has not come whole. */
  #header: Buffer = Buffer.alloc(0);
  #need = 4;
  #state: FrameState = "magic";
  /** Bytes of the present part that are still to come. */
  #left = 0;
  #hasChecksum = false;
  #lastBlock = false;

  /** Whether the input may end here. */
  get betweenFrames(): boolean {
    return this.#state === "magic" && this.#header.length === 0;
  }

  /** Split what came; skippable frames are dropped. */
  *push(chunk: Uint8Array): Generator<FramePart> {
    let at = 0;
    while (at < chunk.length) {
      if (this.#left > 0) {
        const take = Math.min(this.#left, chunk.length - at);
        if (this.#state !== "skip") yield chunk.subarray(at, at + take);
        at += take;
        this.#left -= take;
        if (this.#left === 0 && this.#afterBytes()) yield "end";
        continue;
      }
      const take = Math.min(this.#need - this.#header.length, chunk.length - at);
      this.#header = Buffer.concat([this.#header, chunk.subarray(at, at + take)]);
      at += take;
      if (this.#header.length < this.#need) continue;
      const header = this.#header;
      this.#header = Buffer.alloc(0);
      const { pass, ended } = this.#afterHeader(header);
      if (pass) yield header;
      if (ended) yield "end";
    }
  }

  #expect(state: FrameState, need: number): void {
    this.#state = state;
    this.#need = need;
  }

  /** A part with a known length is over; true when the frame is, too. */
  #afterBytes(): boolean {
    if (this.#state === "data" && !this.#lastBlock) {
      this.#expect("block", 3);
      return false;
    }
    if (this.#state === "data" && this.#hasChecksum) {
      this.#state = "checksum";
      this.#left = 4;
      return false;
    }
    if (this.#state === "fields") {
      this.#expect("block", 3);
      return false;
    }
    const ended = this.#state !== "skip";
    this.#expect("magic", 4);
    return ended;
  }

  /** A header has come whole. */
  #afterHeader(header: Buffer): { pass: boolean; ended: boolean } {
    switch (this.#state) {
      case "magic": {
        const magic = header.readUInt32LE();
        if (magic >>> 4 === 0x184d2a5) {
          this.#expect("skipSize", 4);
          return { pass: false, ended: false };
        }
        if (magic !== 0xfd2fb528) throw new Error("There are bytes that are not a zstd frame");
        this.#expect("descriptor", 1);
        break;
      }
      case "skipSize":
        this.#left = header.readUInt32LE();
        this.#expect(this.#left === 0 ? "magic" : "skip", 4);
        return { pass: false, ended: false };
      case "descriptor": {
        const bits = header[0] ?? 0;
        const single = (bits >> 5) & 1;
        this.#hasChecksum = ((bits >> 2) & 1) === 1;
        const content = [single, 2, 4, 8][bits >> 6] ?? 0;
        const dictionary = [0, 1, 2, 4][bits & 3] ?? 0;
        this.#left = 1 - single + content + dictionary;
        this.#state = "fields";
        break;
      }
      case "block": {
        const bits = header.readUIntLE(0, 3);
        this.#lastBlock = (bits & 1) === 1;
        const type = (bits >> 1) & 3;
        if (type === 3) throw new Error("A zstd block has the reserved type");
        this.#left = type === 1 ? 1 : bits >> 3;
        this.#state = "data";
        // An empty block has no bytes to wait for.
        if (this.#left === 0) return { pass: true, ended: this.#afterBytes() };
        break;
      }
      case "skip":
      case "fields":
      case "data":
      case "checksum":
        // These have no header: their bytes are counted by #left.
        break;
    }
    return { pass: true, ended: false };
  }
}

/** Several zstd frames, one stream of zlib's each. */
function zstdInflater(create: () => Transform, sink: ByteSink): Inflater {
  const splitter = new FrameSplitter();
  let current: Inflater | undefined;
  return {
    async write(bytes) {
      for (const part of splitter.push(bytes)) {
        if (part === "end") {
          await current?.end();
          current = undefined;
        } else {
          current ??= drive(create(), sink);
          await current.write(part);
        }
      }
    },
    async end() {
      if (!splitter.betweenFrames) throw new Error("The last zstd frame is cut off");
    },
  };
}

/**
 * A decompressor to push bytes into. Its methods reject when the data is not what it
 * should be; `end` also when it is cut off.
 */
export async function createInflater(compression: Compression, sink: ByteSink): Promise<Inflater> {
  if (compression === "none") {
    return {
      write: async (bytes) => {
        await sink(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length));
      },
      end: () => Promise.resolve(),
    };
  }
  const zlib = await import("node:zlib");
  if (compression === "gzip") return drive(zlib.createGunzip({ chunkSize: 1 << 17 }), sink);
  return zstdInflater(() => zlib.createZstdDecompress({ chunkSize: 1 << 17 }), sink);
}
