/** A tar archive as blocks and the bytes between them, from a source whose pieces end anywhere. */
import type { ByteSource } from "../byte-source.ts";
import { layerError } from "../errors.ts";
import { RECORD, wordsOf, type HeaderPlace } from "./header.ts";

/** Takes a file's content: ascending offsets, `chunk[from … to−1]`. */
export type DataSink = (offset: number, chunk: Buffer, from: number, to: number) => void;

/** Nothing of an archive. */
const EMPTY: Buffer = Buffer.alloc(0);

/** Reads one archive from its beginning to its end; a block that a piece holds whole is not copied. */
export class Blocks {
  private readonly source: ByteSource;
  private piece: Buffer = EMPTY;
  private words: Uint32Array | undefined;
  private at = 0;
  /** Bytes of the archive up to the end of the present piece. */
  private total = 0;
  /** Where the block is that was read last: in a piece, or in a copy where a piece does not hold it whole. */
  private readonly place: HeaderPlace;
  private readonly copy: { bytes: Buffer; words: Uint32Array };

  constructor(source: ByteSource) {
    this.source = source;
    const words = new Uint32Array(RECORD / 4);
    this.copy = { bytes: Buffer.from(words.buffer), words };
    this.place = { ...this.copy, at: 0 };
  }

  /** Where in the archive the next byte lies. */
  get offset(): number {
    return this.total - this.piece.length + this.at;
  }

  /** Fetch the next piece; false at the end. */
  private more(): boolean {
    const piece = this.source.next();
    this.at = 0;
    if (piece === undefined) {
      this.piece = EMPTY;
      return false;
    }
    this.total += piece.length;
    this.piece = piece;
    this.words = wordsOf(piece);
    return true;
  }

  /** Fill `into` entirely; gives the bytes there were, fewer only at the end. */
  read(into: Buffer): number {
    let done = 0;
    while (done < into.length) {
      if (this.at === this.piece.length && !this.more()) return done;
      const count = Math.min(into.length - done, this.piece.length - this.at);
      this.piece.copy(into, done, this.at, this.at + count);
      this.at += count;
      done += count;
    }
    return done;
  }

  /** The next block, valid until the one after it; undefined at the very end. */
  record(): HeaderPlace | undefined {
    const { place, copy } = this;
    if (this.at === this.piece.length && !this.more()) return undefined;
    if (
      this.words !== undefined &&
      this.at % 4 === 0 &&
      this.at + RECORD <= this.words.length * 4
    ) {
      place.bytes = this.piece;
      place.words = this.words;
      place.at = this.at;
      this.at += RECORD;
      return place;
    }
    const got = this.read(copy.bytes);
    place.bytes = copy.bytes;
    place.words = copy.words;
    place.at = 0;
    if (got === RECORD) return place;
    // Zeros that were to become the blocks at the end: nothing is lost.
    if (copy.bytes.subarray(0, got).every((byte) => byte === 0)) return undefined;
    throw truncated("in a header");
  }

  /** A block as bytes of its own. */
  block(): Buffer | undefined {
    const place = this.record();
    return place?.bytes.subarray(place.at, place.at + RECORD);
  }

  /**
   * Skip what fills a content up to the next block. Some writers leave it out behind the last one
   * (`umoci insert` 0.4.7 does), and Go's reader takes that for the end.
   */
  skipPadding(bytes: number): void {
    this.pass(bytes);
  }

  /** Skip bytes that must be there. */
  skip(bytes: number): void {
    if (this.pass(bytes) > 0) throw truncated("in a file's content");
  }

  /** Pass over bytes. @returns how many there were not */
  private pass(bytes: number): number {
    let left = bytes;
    while (left > 0) {
      if (this.at === this.piece.length) {
        if (this.source.skip !== undefined) {
          this.source.skip(left);
          this.total += left;
          return 0;
        }
        if (!this.more()) return left;
      }
      const count = Math.min(left, this.piece.length - this.at);
      this.at += count;
      left -= count;
    }
    return 0;
  }

  /** Hand on the next bytes, which must be there. @param offset of the first in its file */
  content(length: number, offset: number, sink: DataSink): void {
    let done = 0;
    while (done < length) {
      if (this.at === this.piece.length && !this.more()) throw truncated("in a file's content");
      const count = Math.min(length - done, this.piece.length - this.at);
      sink(offset + done, this.piece, this.at, this.at + count);
      this.at += count;
      done += count;
    }
  }
}

/** The error for an archive that stops too early. */
export function truncated(where: string): Error {
  return layerError("TAR_TRUNCATED", "Cannot read a layer's tar archive", `It ends ${where}.`);
}
