/**
 * The file of a blob, read from its start to its end, also while it is still being fetched: how much
 * there is stands in memory that the reading threads share, and who reads waits for what is missing.
 */
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { errnoOf } from "../model/errors.ts";
import type { LayerBlob } from "../model/image.ts";
import { otherFile } from "./errors.ts";

/** Shared memory; may be sent to a thread. */
export interface ArrivalMemory {
  /** By layer, bottom to top: bytes that are there, and a count that goes up with them. */
  bytes: SharedArrayBuffer;
  /** By layer: where its bytes are until all are there. */
  partials: string[];
}

/** How much of each layer is there. */
export class Arrivals {
  private readonly bytes: BigInt64Array;

  constructor(memory: ArrivalMemory) {
    this.bytes = new BigInt64Array(memory.bytes);
  }

  /** Memory for layers of which nothing is there yet. */
  static create(partials: string[]): ArrivalMemory {
    return { bytes: new SharedArrayBuffer(8 * partials.length), partials };
  }

  /** So many bytes of a layer are there now, from its start. */
  note(layer: number, bytes: number): void {
    Atomics.store(this.bytes, layer, BigInt(bytes));
    Atomics.notify(this.bytes, layer);
  }

  /** Wait until there are more bytes of a layer than so many. @returns how many there are */
  beyond(layer: number, bytes: number): number {
    for (;;) {
      const there = Atomics.load(this.bytes, layer);
      if (there > bytes) return Number(there);
      Atomics.wait(this.bytes, layer, there);
    }
  }
}

/** How much of a layer there is, and where until then. */
interface Arriving {
  /** Wait for more than so many bytes. @returns how many there are */
  beyond: (bytes: number) => number;
  partial: string;
}

/** What is to be known of a layer that may not be there yet. */
export function arrivingLayer(memory: ArrivalMemory, layer: number): Arriving {
  const arrivals = new Arrivals(memory);
  return {
    beyond: (bytes) => arrivals.beyond(layer, bytes),
    partial: memory.partials[layer] ?? "",
  };
}

/** Open what is renamed from `partial` to `path` at some moment. */
function openEither(path: string, partial: string): number {
  for (const place of [path, partial]) {
    try {
      return openSync(place, "r");
    } catch (error) {
      if (errnoOf(error) !== "ENOENT") throw error;
    }
  }
  // Renamed between the two looks.
  return openSync(path, "r");
}

/** A blob's bytes. */
export class BlobFile {
  private readonly blob: LayerBlob;
  private readonly arriving: Arriving | undefined;
  private readonly fd: number;
  private at = 0;

  /**
   * @param arriving of a layer that may not be there yet; opening it waits for its first byte
   * Throws ERR_LAYER_DIGEST for a file of another size.
   */
  constructor(blob: LayerBlob, arriving?: Arriving) {
    this.blob = blob;
    this.arriving = arriving;
    if (arriving !== undefined && blob.size > 0) {
      arriving.beyond(0);
      this.fd = openEither(blob.path, arriving.partial);
      return;
    }
    this.fd = openSync(blob.path, "r");
    const { size } = fstatSync(this.fd);
    if (size !== blob.size) throw otherFile(blob, `it has ${size} bytes instead of ${blob.size}`);
  }

  /** Read the next bytes into a buffer. @returns how many; 0 at the end */
  read(into: Uint8Array): number {
    let room = into.length;
    if (this.arriving !== undefined) {
      if (this.at === this.blob.size) return 0;
      room = Math.min(room, this.arriving.beyond(this.at) - this.at);
    }
    const count = readSync(this.fd, into, 0, room, null);
    this.at += count;
    return count;
  }

  /** Close the file. */
  close(): void {
    closeSync(this.fd);
  }
}
