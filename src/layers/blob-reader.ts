/** Reads a blob of the content store, decompressed, and checks its size and digest on the way. */
import { createHash } from "node:crypto";
import { closeSync, openSync, readSync } from "node:fs";
import type { LayerBlob } from "../model/image.ts";
import { messageOf } from "../model/errors.ts";
import { layerError } from "./errors.ts";
import type { Inflater } from "./inflater.ts";

const INPUT_SIZE = 256 * 1024;

/** The error for a blob that is not the one the manifest names. */
export function badDigest(blob: LayerBlob, found: string): Error {
  return layerError(
    "DIGEST",
    `Cannot use the layer ${blob.digest}`,
    `The file ${blob.path} is another one: ${found}.`,
    "Remove the image and pull it again.",
  );
}

/** The error for a stream that its decompressor refuses. */
export function badCompression(blob: LayerBlob, why: string): Error {
  return layerError(
    "COMPRESSION",
    `Cannot decompress the layer ${blob.digest} (${blob.compression})`,
    why,
  );
}

/** Reads one blob to its end, once. */
export class BlobReader {
  private readonly blob: LayerBlob;
  private readonly inflater: Inflater;
  private readonly fd: number;
  private readonly hash = createHash("sha256");
  private readonly input = Buffer.allocUnsafeSlow(INPUT_SIZE);
  private at = 0;
  private end = 0;
  private size = 0;
  private eof = false;
  private done = false;
  private readonly onRead: (bytes: number) => void;

  /** @param onRead told of compressed bytes read */
  constructor(blob: LayerBlob, inflater: Inflater, onRead: (bytes: number) => void) {
    this.blob = blob;
    this.inflater = inflater;
    this.onRead = onRead;
    this.fd = openSync(blob.path, "r");
  }

  /** Read more of the file, unless it has ended. */
  private refill(): void {
    const count = readSync(this.fd, this.input, 0, INPUT_SIZE, null);
    this.at = 0;
    this.end = count;
    this.size += count;
    this.hash.update(this.input.subarray(0, count));
    this.onRead(count);
    if (count === 0) this.eof = true;
  }

  /** Read what is left, for size and digest. */
  private finish(): void {
    while (!this.eof) this.refill();
    this.done = true;
    const found = `sha256:${this.hash.digest("hex")}`;
    if (this.size !== this.blob.size) {
      throw badDigest(this.blob, `it has ${this.size} bytes instead of ${this.blob.size}`);
    }
    if (found !== this.blob.digest) throw badDigest(this.blob, found);
  }

  /**
   * Fill a buffer with uncompressed bytes. @returns how many; fewer than its length only at the
   * end, when size and digest have been found right
   */
  fill(output: Uint8Array): number {
    let filled = 0;
    while (filled < output.length && !this.done) {
      if (this.at === this.end && !this.eof) this.refill();
      const { consumed, produced } = this.step(output, filled);
      filled += produced;
      this.at += consumed;
      // Nothing moves although there is room: the end, or zero bytes behind the last member.
      if (consumed === 0 && produced === 0) this.finish();
    }
    return filled;
  }

  private step(output: Uint8Array, filled: number): { consumed: number; produced: number } {
    try {
      return this.inflater.step(this.input, this.at, this.end, output, filled, this.eof);
    } catch (error) {
      // A damaged file is the likelier cause: say so if it is.
      this.finish();
      throw badCompression(this.blob, messageOf(error));
    }
  }

  /** Close file and decompressor. */
  close(): void {
    this.inflater.close();
    closeSync(this.fd);
  }
}
