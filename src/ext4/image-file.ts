/**
 * The image as a file: sparse, made at its full size, written at computed places and otherwise
 * strictly forward. Everything is synchronous: builds run in a worker thread.
 */
import { closeSync, fsyncSync, ftruncateSync, openSync, writeSync } from "node:fs";
import { VmsanError } from "../model/errors.ts";
import { BLOCK_SIZE } from "./constants.ts";

/**
 * Bytes collected before one write call: from 64 KiB up the call costs less than the copy, and what
 * fits the processor's second-level cache is copied three times faster than a few megabytes.
 */
const BUFFER_SIZE = 256 * 1024;
/** Bytes that {@link BlockAppender.window} always has room for. */
export const WINDOW_SIZE = 64 * 1024;

/** An image file open for writing. */
export class ImageFile {
  readonly path: string;
  /** Bytes handed to the kernel so far. */
  bytesWritten = 0;
  private readonly fd: number;

  /**
   * Make the file, which must not exist, as one hole.
   * @param mode permission bits
   */
  constructor(path: string, sizeBytes: number, mode = 0o600) {
    this.path = path;
    this.fd = openSync(path, "wx", mode);
    ftruncateSync(this.fd, sizeBytes);
  }

  /** Write all of `bytes` at a byte offset. */
  write(offset: number, bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length;) {
      const count = writeSync(this.fd, bytes, done, bytes.length - done, offset + done);
      if (count <= 0) throw new RangeError("write returned 0");
      done += count;
    }
    this.bytesWritten += bytes.length;
  }

  /** Wait until everything is on the disk. */
  sync(): void {
    fsyncSync(this.fd);
  }

  /** Close the file; nothing else is done. */
  close(): void {
    closeSync(this.fd);
  }
}

/** Runs of blocks: pairs of first block and count, ascending. */
export type BlockRuns = readonly number[];

/** Allocates blocks strictly forward and writes them in large pieces. */
export class BlockAppender {
  /** Blocks left free in front of those to avoid: pairs of first block and count. */
  readonly skipped: number[] = [];
  private readonly file: ImageFile;
  private readonly limit: number;
  private readonly avoid: BlockRuns;
  /** Index in `avoid` of the next run that lies ahead. */
  private ahead = 0;
  private readonly buffer = Buffer.allocUnsafeSlow(BUFFER_SIZE);
  private fill = 0;
  /** Block that the buffer's first byte will have. */
  private first: number;

  /**
   * @param first first block to give out
   * @param limit number of blocks of the disk
   * @param avoid blocks that are given to nobody
   */
  constructor(file: ImageFile, first: number, limit: number, avoid: BlockRuns = []) {
    this.file = file;
    this.first = first;
    this.limit = limit;
    this.avoid = avoid;
  }

  /** Make the next `count` blocks ones that lie together and need not be avoided. */
  private step(count: number): void {
    for (; this.ahead < this.avoid.length; this.ahead += 2) {
      const from = this.avoid[this.ahead] ?? 0;
      if (this.next + count <= from) return;
      this.flush();
      if (from > this.first) this.skipped.push(this.first, from - this.first);
      this.first = from + (this.avoid[this.ahead + 1] ?? 0);
    }
  }

  /** Give out `count` blocks in one piece that the caller writes. @returns the first */
  place(count: number): number {
    this.flush();
    this.step(count);
    const block = this.first;
    if (block + count > this.limit) throw diskFull(this.limit);
    this.first += count;
    return block;
  }

  /** The block that is given out next. */
  get next(): number {
    return this.first + this.fill / BLOCK_SIZE;
  }

  /**
   * Room for {@link WINDOW_SIZE} bytes at the next block, with undefined content, to be filled and
   * then (at least partly) taken by {@link commit}, or left.
   */
  window(): { bytes: Buffer; at: number } {
    this.step(WINDOW_SIZE / BLOCK_SIZE);
    if (this.fill + WINDOW_SIZE > BUFFER_SIZE) this.flush();
    return { bytes: this.buffer, at: this.fill };
  }

  /** Take `blocks` blocks, filled through {@link window}; returns the first one. */
  commit(blocks: number): number {
    const block = this.next;
    if (block + blocks > this.limit) throw diskFull(this.limit);
    this.fill += blocks * BLOCK_SIZE;
    return block;
  }

  /** Append one block of content. */
  append(block: Uint8Array): number {
    const { bytes, at } = this.window();
    bytes.set(block, at);
    return this.commit(1);
  }

  /** Write blocks that have been given out before, and are somebody else's now. */
  rewrite(block: number, bytes: Uint8Array): void {
    // What is buffered for them must not come later.
    if (block >= this.first) this.flush();
    this.file.write(block * BLOCK_SIZE, bytes);
  }

  /** Write out what is buffered. */
  flush(): void {
    if (this.fill === 0) return;
    this.file.write(this.first * BLOCK_SIZE, this.buffer.subarray(0, this.fill));
    this.first = this.next;
    this.fill = 0;
  }
}

/** The error for content that does not fit. */
export function diskFull(blocks: number): VmsanError {
  return new VmsanError({
    code: "ERR_DISK_FULL",
    message: `The image does not fit on a disk of ${blocks * BLOCK_SIZE} bytes`,
    why: "Its files and the file system's own tables need more room.",
    fix: "Ask for a larger disk (--disk, --size).",
  });
}
