/**
 * A queue of byte pieces between two threads in shared memory: one produces, one consumes, both
 * block while they cannot go on. Pieces are written and read in place, without a copy.
 */

/** Bytes per slot: a multiple of tar's block, so that headers rarely cross slots. */
export const SLOT_SIZE = 256 * 1024;

/** What a slot holds. */
export const SLOT = { data: 0, end: 1, error: 2 } as const;

/** The shared memory of a ring; may be sent to another thread. */
export interface RingMemory {
  slots: number;
  /** Produced, consumed, then kind and length of each slot. */
  control: SharedArrayBuffer;
  data: SharedArrayBuffer;
}

const PRODUCED = 0;
const CONSUMED = 1;
const META = 2;

/** Make a ring of so many slots. Memory is only taken once it is written to. */
export function createRing(slots: number): RingMemory {
  return {
    slots,
    control: new SharedArrayBuffer(4 * (META + 2 * slots)),
    data: new SharedArrayBuffer(slots * SLOT_SIZE),
  };
}

/** One end of a ring. */
abstract class RingEnd {
  protected readonly control: Int32Array;
  /** Buffers, because copying out of those is many times faster than `set()` from shared memory. */
  protected readonly slots: Buffer[];

  constructor(memory: RingMemory) {
    this.control = new Int32Array(memory.control);
    this.slots = Array.from({ length: memory.slots }, (_, i) =>
      Buffer.from(memory.data, i * SLOT_SIZE, SLOT_SIZE),
    );
  }

  /** The memory of the slot with this running number. */
  protected slot(number: number): Buffer {
    const bytes = this.slots[number % this.slots.length];
    if (bytes === undefined) throw new RangeError("ring without slots");
    return bytes;
  }

  /** Index of a slot's kind in the control words. */
  protected meta(number: number): number {
    return META + 2 * (number % this.slots.length);
  }
}

/** The producing end. */
export class RingProducer extends RingEnd {
  private produced = 0;

  /** Wait for a free slot and give its memory. */
  reserve(): Buffer {
    for (;;) {
      const consumed = Atomics.load(this.control, CONSUMED);
      if (this.produced - consumed < this.slots.length) return this.slot(this.produced);
      Atomics.wait(this.control, CONSUMED, consumed);
    }
  }

  /** Hand over the reserved slot. */
  commit(kind: number, length: number): void {
    const meta = this.meta(this.produced);
    this.control[meta] = kind;
    this.control[meta + 1] = length;
    Atomics.store(this.control, PRODUCED, ++this.produced);
    Atomics.notify(this.control, PRODUCED);
  }
}

/** The consuming end. */
export class RingConsumer extends RingEnd {
  private consumed = 0;

  /** Wait for a piece; it is valid until {@link release}. */
  take(): { kind: number; bytes: Buffer } {
    for (;;) {
      const produced = Atomics.load(this.control, PRODUCED);
      if (produced > this.consumed) break;
      Atomics.wait(this.control, PRODUCED, produced);
    }
    const meta = this.meta(this.consumed);
    const length = this.control[meta + 1] ?? 0;
    return { kind: this.control[meta] ?? 0, bytes: this.slot(this.consumed).subarray(0, length) };
  }

  /** Give the taken slot back. */
  release(): void {
    Atomics.store(this.control, CONSUMED, ++this.consumed);
    Atomics.notify(this.control, CONSUMED);
  }
}
