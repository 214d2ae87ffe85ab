/**
 * Reads a blob of the content store, decompressed. That it is the right one shows at the archive's
 * end, by the digest of what came out (stream.ts); of what went in it would be the same said twice.
 */
import type { LayerBlob } from "../model/image.ts";
import { messageOf } from "../model/errors.ts";
import type { BlobFile } from "./blob-file.ts";
import { layerError } from "./errors.ts";
import type { Inflater } from "./inflater.ts";

const INPUT_SIZE = 256 * 1024;

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
  private readonly file: BlobFile;
  private readonly inflater: Inflater;
  private readonly input = Buffer.allocUnsafeSlow(INPUT_SIZE);
  private at = 0;
  private end = 0;
  private eof = false;
  private done = false;
  private readonly onRead: (bytes: number) => void;

  /** @param onRead told of compressed bytes read */
  constructor(
    blob: LayerBlob,
    file: BlobFile,
    inflater: Inflater,
    onRead: (bytes: number) => void,
  ) {
    this.blob = blob;
    this.file = file;
    this.inflater = inflater;
    this.onRead = onRead;
  }

  /** Read more of the file, unless it has ended. */
  private refill(): void {
    const count = this.file.read(this.input);
    this.at = 0;
    this.end = count;
    this.onRead(count);
    if (count === 0) this.eof = true;
  }

  /** Fill a buffer with uncompressed bytes. @returns how many; fewer than its length only at the end */
  fill(output: Uint8Array): number {
    let filled = 0;
    while (filled < output.length && !this.done) {
      if (this.at === this.end && !this.eof) this.refill();
      const { consumed, produced } = this.step(output, filled);
      filled += produced;
      this.at += consumed;
      // Nothing moves although there is room: the end, or zero bytes behind the last member.
      if (consumed === 0 && produced === 0) this.done = true;
    }
    return filled;
  }

  private step(output: Uint8Array, filled: number): { consumed: number; produced: number } {
    try {
      return this.inflater.step(this.input, this.at, this.end, output, filled, this.eof);
    } catch (error) {
      throw badCompression(this.blob, messageOf(error));
    }
  }
}
