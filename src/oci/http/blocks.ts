/** Memory that bodies are received into and written from, used again and again. */
import { write, writeSync } from "node:fs";
import { promisify } from "node:util";
import type { BodySink } from "./connection.ts";

/** Bytes of a block: one write. */
const BLOCK = 512 << 10;
/** Most blocks of one download: one being filled, others being written. */
const BLOCKS = 3;
/**
 * Largest write that this thread does itself, in bytes. It goes into the page cache in less time
 * than a turn of the thread pool takes.
 */
const SYNC_WRITE = 64 << 10;

const writeAside = promisify(write);

/** Most unused blocks that are kept: what six downloads use. */
const KEPT = 6 * BLOCKS;

/**
 * Blocks that no download of this process uses at the moment. Memory that is let go of stays
 * until some later garbage collection, so new blocks for each pull would add up in a daemon.
 */
const unused: Buffer[] = [];

/** A block with unknown content. @param size bytes that it need hold; it may hold more */
function takeBlock(size: number): Buffer {
  // Made to measure for a small body: thirty layers of 50 kB need not have 15 MiB.
  if (size < BLOCK / 2) return Buffer.allocUnsafeSlow(size);
  return unused.pop() ?? Buffer.allocUnsafeSlow(BLOCK);
}

/** Give a block back that nobody reads or writes any more. */
function giveBlock(block: Buffer): void {
  if (block.length === BLOCK && unused.length < KEPT) unused.push(block);
}

/** Writes a body to a file while the next block is received. */
export class BlockWriter implements BodySink {
  readonly #fd: number;
  readonly #onBytes: (bytes: Buffer) => void;
  readonly #onWritten: (end: number) => void;
  /** Ends when all blocks so far are written. */
  #inOrder: Promise<unknown> = Promise.resolve();
  /** One more than expected, so that a body that goes on shows. */
  readonly #blockSize: number;
  #position: number;
  #current: Buffer;
  #used = 0;
  #free: Buffer[] = [];
  #writing = new Set<Promise<void>>();
  #failure: { error: unknown } | undefined;

  /**
   * @param fd file descriptor, open until {@link finish} has ended
   * @param position in the file where the body goes
   * @param expected bytes that the body should have; more may come, and are offered as well
   * @param onBytes sees every piece before it is written; throws to refuse it
   * @param onWritten told up to which place in the file everything is written
   */
  constructor(
    fd: number,
    position: number,
    expected: number,
    onBytes: (bytes: Buffer) => void,
    onWritten: (end: number) => void = () => undefined,
  ) {
    this.#onWritten = onWritten;
    this.#fd = fd;
    this.#position = position;
    this.#onBytes = onBytes;
    this.#blockSize = expected + 1;
    this.#current = takeBlock(this.#blockSize);
  }

  space(): Uint8Array {
    return this.#current.subarray(this.#used);
  }

  filled(size: number): void | Promise<void> {
    const from = this.#used;
    this.#onBytes(this.#current.subarray(from, from + size));
    this.#used += size;
    if (this.#used < this.#current.length) return undefined;
    this.#writeCurrent();
    // There is always a block to fill: reading stops before the last one is full.
    return this.#writing.size < BLOCKS - 1 ? undefined : this.#oneWritten();
  }

  /** Wait for any write to end. */
  async #oneWritten(): Promise<void> {
    while (this.#writing.size >= BLOCKS - 1) await Promise.race(this.#writing);
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  /** Begin to write the present block and take another. */
  #writeCurrent(): void {
    const block = this.#current;
    const size = this.#used;
    const position = this.#position;
    this.#position += size;
    this.#used = 0;
    this.#current = this.#free.pop() ?? takeBlock(this.#blockSize);
    const written = this.#writeAll(block.subarray(0, size), position)
      .catch((error: unknown) => {
        this.#failure ??= { error };
      })
      .finally(() => {
        this.#free.push(block);
        this.#writing.delete(written);
      });
    this.#writing.add(written);
    this.#inOrder = Promise.all([this.#inOrder, written]).then(() => {
      if (this.#failure === undefined) this.#onWritten(position + size);
    });
  }

  /** A write may take less than it is given. */
  async #writeAll(bytes: Buffer, position: number): Promise<void> {
    for (let done = 0; done < bytes.length;) {
      const left = bytes.length - done;
      done +=
        left <= SYNC_WRITE
          ? writeSync(this.#fd, bytes, done, left, position + done)
          : (await writeAside(this.#fd, bytes, done, left, position + done)).bytesWritten;
    }
  }

  /** Write what is left and give the memory back; call it once, however the body ended. */
  async finish(): Promise<void> {
    try {
      if (this.#used > 0) {
        await this.#writeAll(this.#current.subarray(0, this.#used), this.#position);
      }
    } finally {
      await Promise.all(this.#writing);
      await this.#inOrder;
      for (const block of [this.#current, ...this.#free]) giveBlock(block);
      this.#free = [];
    }
    if (this.#failure !== undefined) throw this.#failure.error;
    this.#onWritten(this.#position + this.#used);
  }
}
