/**
 * Layers that are read while they are still being fetched: how much of each there is, in memory
 * that the reading threads share. Whoever reads waits for what is missing.
 */

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
