/**
 * The program that builds one image: its memory goes away with it. It takes one order from the
 * process that started it, is told what comes of layers that are not there yet, answers, and ends;
 * when that process ends first, so does this one, at once and whatever its threads wait for.
 */
import { existsSync, writeFileSync } from "node:fs";
import { flushCompileCache } from "node:module";
import { open, type FileHandle } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { Arrivals, startReaders, workerUrl } from "../layers/layers.ts";
import { asVmsanError } from "../model/errors.ts";
import { peakBytes } from "../util/process/peak-memory.ts";
import type {
  Arrived,
  BuildAnswer,
  ProcessMessage,
  ProcessOrder,
  ThreadOrder,
} from "./protocol.ts";

/** How often progress is told, in milliseconds. */
const PROGRESS_MS = 100;
/** Between two times at which what is written is brought to the disk, in milliseconds. */
const SYNC_MS = 200;
/**
 * MiB of the building thread's heap. What it remembers of entries lies outside, in arrays; a small
 * nursery collects early what it makes and forgets.
 */
const HEAP = { maxYoungGenerationSizeMb: 8, maxOldGenerationSizeMb: 512 } as const;

/** End without waiting for threads, which may be inside a call that never returns. */
function end(): void {
  process.kill(process.pid, "SIGKILL");
}

/** When memory runs out, the kernel should take this process, not the one that asked for it. */
function offerToOomKiller(): void {
  try {
    writeFileSync("/proc/self/oom_score_adj", "500");
  } catch {
    // A kernel or container without it (EACCES, ENOENT): the kernel chooses as it likes.
  }
}

/**
 * Have what is written so far brought to the disk, again and again until it is over: whoever wants all
 * of it there in the end waits for the rest alone. Throws what that meets: the kernel tells it only once.
 */
async function syncAlong(path: string, over: AbortSignal): Promise<void> {
  let file: FileHandle | undefined;
  try {
    while (!over.aborted) {
      // The abort of a wait is what it waits for.
      await sleep(SYNC_MS, undefined, { signal: over }).catch(() => undefined);
      if (file === undefined && existsSync(path)) file = await open(path, "r");
      if (!over.aborted) await file?.datasync();
    }
  } finally {
    await file?.close();
  }
}

/** Run the threads of one build. */
async function build({
  layers,
  streams,
  partials,
  ...request
}: ProcessOrder): Promise<BuildAnswer> {
  const arrivals = partials === undefined ? undefined : Arrivals.create(partials);
  if (arrivals !== undefined) {
    const noted = new Arrivals(arrivals);
    process.on("message", ({ layer, bytes }: Arrived) => noted.note(layer, bytes));
  }
  const readers = startReaders(layers, { streams, arrivals });
  const order: ThreadOrder = { ...request, memory: readers.memory };
  const worker = new Worker(workerUrl(import.meta.url, "build-worker"), {
    workerData: order,
    execArgv: [],
    resourceLimits: HEAP,
  });
  const read = new BigInt64Array(readers.memory.progress);
  const timer = setInterval(
    () => tell({ kind: "progress", done: Number(Atomics.load(read, 0)) }),
    PROGRESS_MS,
  );
  const over = new AbortController();
  const synced =
    request.format === "disk" ? syncAlong(request.output, over.signal) : Promise.resolve();
  try {
    const answer = await Promise.race([
      readers.failed,
      synced.then(async () => await new Promise<never>(() => undefined)),
      new Promise<BuildAnswer>((resolve, reject) => {
        worker.on("message", resolve);
        worker.on("error", reject);
      }),
    ]);
    over.abort();
    await synced;
    if (answer.kind === "done") answer.result.peakBytes = peakBytes();
    return answer;
  } catch (error) {
    const action = `Cannot build the disk image ${request.output}`;
    return { kind: "failed", error: asVmsanError(error, action, "ERR_DISK_BUILD").toJSON() };
  } finally {
    clearInterval(timer);
    over.abort();
  }
}

/** Send a message to who started this process. */
function tell(message: ProcessMessage, sent: () => void = () => undefined): void {
  process.send?.(message, sent);
}

process.once("disconnect", end);
process.once("message", (order: ProcessOrder) => {
  offerToOomKiller();
  void build(order).then((answer) => {
    // Nothing new after the first time; an end by a signal would keep nothing.
    flushCompileCache();
    tell(answer, end);
  });
});
