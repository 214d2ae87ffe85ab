/** Memory that bodies are received into and written from, used again and again. */
import type { FileHandle } from "node:fs/promises";
import type { BodySink } from "./connection.ts";

/** Bytes of a block: one write. */
const BLOCK = 1 << 20;
/** Blocks of one download: one being filled, others being written. */
const BLOCKS = 3;

/** Blocks that nobody uses at the moment. */
export class BlockPool {
  readonly #free: Buffer[] = [];

  /** A block with unknown content. */
  take(): Buffer {
    return this.#free.pop() ?? Buffer.allocUnsafeSlow(BLOCK);
  }

  /** Give a block back. */
  give(block: Buffer): void {
    this.#free.push(block);
  }
}

/** Writes a body to a file while the next block is received. */
export class BlockWriter implements BodySink {
  readonly #handle: FileHandle;
  readonly #pool: BlockPool;
  readonly #onBytes: (bytes: Buffer) => void;
  #position: number;
  #current: Buffer;
  #used = 0;
  #free: Buffer[] = [];
  #writing = new Set<Promise<void>>();
  #failure: { error: unknown } | undefined;

  /**
   * @param position in the file where the body goes
   * @param onBytes sees every piece before it is written; throws to refuse it
   */
  constructor(
    handle: FileHandle,
    position: number,
    pool: BlockPool,
    onBytes: (bytes: Buffer) => void,
  ) {
    this.#handle = handle;
    this.#position = position;
    this.#pool = pool;
    this.#onBytes = onBytes;
    this.#current = pool.take();
    for (let count = 1; count < BLOCKS; count += 1) this.#free.push(pool.take());
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
    return this.#free.length > 0 ? undefined : this.#oneWritten();
  }

  /** Wait for any write to end. */
  async #oneWritten(): Promise<void> {
    while (this.#free.length === 0 && this.#writing.size > 0) await Promise.race(this.#writing);
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  /** Begin to write the present block and take another. */
  #writeCurrent(): void {
    const block = this.#current;
    const size = this.#used;
    const position = this.#position;
    this.#position += size;
    this.#used = 0;
    this.#current = this.#free.pop() ?? this.#pool.take();
    const write = this.#writeAll(block.subarray(0, size), position)
      .catch((error: unknown) => {
        this.#failure ??= { error };
      })
      .finally(() => {
        this.#free.push(block);
        this.#writing.delete(write);
      });
    this.#writing.add(write);
  }

  /** A write may take less than it is given. */
  async #writeAll(bytes: Buffer, position: number): Promise<void> {
    for (let done = 0; done < bytes.length;) {
      const { bytesWritten } = await this.#handle.write(
        bytes,
        done,
        bytes.length - done,
        position + done,
      );
      done += bytesWritten;
    }
  }

  /** Write what is left and give the memory back; call it once, however the body ended. */
  async finish(): Promise<void> {
    if (this.#used > 0) this.#writeCurrent();
    await Promise.all(this.#writing);
    for (const block of [this.#current, ...this.#free]) this.#pool.give(block);
    this.#free = [];
    if (this.#failure !== undefined) throw this.#failure.error;
  }
}
