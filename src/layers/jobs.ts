/** Which worker decompresses which layer: a list in shared memory that workers claim from. */

/** Shared memory of a job list. */
export interface JobMemory {
  words: SharedArrayBuffer;
}

const NEXT = 0;
const COUNT = 1;
/** Per job: the layer, and the worker that claimed it (+1). */
const FIRST = 2;

/** A list of layers to decompress; each is claimed by one worker, in order. */
export class Jobs {
  private readonly words: Int32Array;

  constructor(memory: JobMemory) {
    this.words = new Int32Array(memory.words);
  }

  /** Make a list with all layers, top-down, and room for each of them once more. */
  static create(layers: number): JobMemory {
    const words = new Int32Array(new SharedArrayBuffer(4 * (FIRST + 2 * 2 * layers)));
    for (let i = 0; i < layers; i++) words[FIRST + 2 * i] = layers - 1 - i;
    words[COUNT] = layers;
    return { words: words.buffer };
  }

  /** Wait for the next job and claim it for a worker. @returns its layer */
  claim(worker: number): number {
    const job = Atomics.add(this.words, NEXT, 1);
    for (;;) {
      const count = Atomics.load(this.words, COUNT);
      if (job < count) break;
      Atomics.wait(this.words, COUNT, count);
    }
    Atomics.store(this.words, FIRST + 2 * job + 1, worker + 1);
    Atomics.notify(this.words, FIRST + 2 * job + 1);
    return Atomics.load(this.words, FIRST + 2 * job);
  }

  /** Add a layer to be read again. @returns its job number */
  add(layer: number): number {
    const job = Atomics.load(this.words, COUNT);
    Atomics.store(this.words, FIRST + 2 * job, layer);
    Atomics.store(this.words, COUNT, job + 1);
    Atomics.notify(this.words, COUNT);
    return job;
  }

  /** Wait until a job is claimed. @returns the worker */
  owner(job: number): number {
    const at = FIRST + 2 * job + 1;
    for (;;) {
      const owner = Atomics.load(this.words, at);
      if (owner !== 0) return owner - 1;
      Atomics.wait(this.words, at, 0);
    }
  }
}
