/** Worker threads that decompress layers, and the streams that come out of them. */
import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import { VmsanError, type ErrorInfo } from "../model/errors.ts";
import type { LayerBlob } from "../model/image.ts";
import type { ArrivalMemory } from "./blob-file.ts";
import type { ByteSource } from "./byte-source.ts";
import { createRing, RingConsumer, SLOT, SLOT_SIZE, type RingMemory } from "./ring.ts";
import { Jobs, type JobMemory } from "./jobs.ts";
import { workerUrl } from "./worker-url.ts";

/** What consumer and workers share; may be sent to a thread. */
export interface ReaderMemory {
  layers: LayerBlob[];
  jobs: JobMemory;
  rings: RingMemory[];
  /** Compressed bytes read so far: one 64-bit number. */
  progress: SharedArrayBuffer;
  /** Of layers that are still being fetched. */
  arrivals: ArrivalMemory | undefined;
  /** Use Node's public streams only; for tests of that path. */
  streams: boolean;
}

/** All rings together: how far decompression may run ahead of the file system. */
const RING_BYTES = 48 * 1024 * 1024;

/** Running decompression threads. */
export interface Readers {
  memory: ReaderMemory;
  /** Never fulfilled; rejects when a thread breaks. */
  failed: Promise<never>;
  /** End all threads. */
  stop(): Promise<void>;
}

/**
 * Start decompressing layers.
 * @param layers bottom to top; they are decompressed top-down
 */
export function startReaders(
  layers: LayerBlob[],
  { streams, arrivals }: Pick<ReaderMemory, "streams" | "arrivals">,
): Readers {
  const count = Math.max(1, Math.min(layers.length, availableParallelism(), 4));
  const slots = Math.floor(RING_BYTES / SLOT_SIZE / count);
  const memory: ReaderMemory = {
    layers,
    jobs: Jobs.create(layers.length),
    rings: Array.from({ length: count }, () => createRing(slots)),
    progress: new SharedArrayBuffer(8),
    arrivals,
    streams,
  };
  const workers = memory.rings.map(
    (_, worker) =>
      new Worker(workerUrl(import.meta.url, "inflate-worker"), {
        workerData: { memory, worker },
        // Flags meant for the main program are none of a worker's.
        execArgv: [],
      }),
  );
  const failed = new Promise<never>((_, reject) => {
    for (const worker of workers) worker.on("error", reject);
  });
  // Whoever waits for the result races against it; nobody may be waiting yet.
  failed.catch(() => undefined);
  return {
    memory,
    failed,
    async stop() {
      await Promise.all(workers.map((worker) => worker.terminate()));
    },
  };
}

/** The consumer's end: gives the layers' archives, in the order of the jobs. */
export class LayerSources {
  private readonly memory: ReaderMemory;
  private readonly jobs: Jobs;
  private readonly rings: RingConsumer[];

  constructor(memory: ReaderMemory) {
    this.memory = memory;
    this.jobs = new Jobs(memory.jobs);
    this.rings = memory.rings.map((ring) => new RingConsumer(ring));
  }

  /** A layer's archive, top-down: each is to be read to its end before the next is opened. */
  open(layer: number): ByteSource {
    return this.source(this.memory.layers.length - 1 - layer);
  }

  /** A layer once more, after all have been read. */
  reopen(layer: number): ByteSource {
    return this.source(this.jobs.add(layer));
  }

  private source(job: number): ByteSource {
    const ring = this.rings[this.jobs.owner(job)];
    if (ring === undefined) throw new RangeError(`no ring for job ${job}`);
    let taken = false;
    let ended = false;
    return {
      next() {
        if (taken) ring.release();
        taken = false;
        if (ended) return undefined;
        const { kind, bytes } = ring.take();
        if (kind === SLOT.data) {
          taken = true;
          return bytes;
        }
        const text = kind === SLOT.error ? Buffer.from(bytes).toString("utf8") : undefined;
        ring.release();
        ended = true;
        if (text !== undefined) throw new VmsanError(JSON.parse(text) as ErrorInfo);
        return undefined;
      },
    };
  }
}
