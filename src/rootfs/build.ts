/** Runs one build in threads of its own, so that the caller's event loop stays free. */
import { existsSync } from "node:fs";
import { rename, rm } from "node:fs/promises";
import { Worker } from "node:worker_threads";
import { VmsanError } from "../model/errors.ts";
import type { LayerBlob } from "../model/image.ts";
import { DEFAULT_LIMITS, startReaders, workerUrl } from "../layers/layers.ts";
import { asidePath } from "./aside.ts";
import type { BuildAnswer, BuildOrder, BuildResult } from "./protocol.ts";

/** How often progress is told, in milliseconds. */
const PROGRESS_MS = 100;

/** What a build is told besides its order. */
export interface BuildContext {
  signal: AbortSignal;
  /** Compressed bytes read, and how many there are. */
  progress?: (done: number, total: number) => void;
}

/** The rest of a build order: see BuildOrder. */
export type BuildRequest = Omit<BuildOrder, "memory" | "limits"> & {
  limits?: BuildOrder["limits"];
  /** Decompress with Node's public streams only. */
  streams?: boolean;
};

/**
 * Merge layers and write them out. `request.output` must not exist, and appears when it is complete;
 * on failure or abort nothing is left beside it (see aside.ts for a killed process).
 */
export async function runBuild(
  layers: LayerBlob[],
  request: BuildRequest,
  context: BuildContext,
): Promise<BuildResult> {
  const { signal, progress } = context;
  signal.throwIfAborted();
  if (existsSync(request.output)) {
    throw new VmsanError({
      code: "ERR_DISK_EXISTS",
      message: `Cannot write the disk image ${request.output}`,
      why: "There is already a file.",
      fix: "Remove it, or choose another name.",
    });
  }
  const aside = await asidePath(request.output);
  // An abort during the wait has no listener yet.
  signal.throwIfAborted();
  const { streams, limits = DEFAULT_LIMITS, ...rest } = request;
  const readers = startReaders(layers, streams);
  const order: BuildOrder = { ...rest, output: aside, limits, memory: readers.memory };
  const worker = new Worker(workerUrl(import.meta.url, "build-worker"), {
    workerData: order,
    execArgv: [],
    // A small nursery: what entries leave behind is collected early instead of filling memory.
    resourceLimits: { maxYoungGenerationSizeMb: 16 },
  });
  const total = layers.reduce((sum, layer) => sum + layer.size, 0);
  const read = new BigInt64Array(readers.memory.progress);
  const timer =
    progress === undefined
      ? undefined
      : setInterval(
          () => progress(Math.min(total, Number(Atomics.load(read, 0))), total),
          PROGRESS_MS,
        );
  let onAbort: (() => void) | undefined;
  try {
    const answer = await Promise.race([
      readers.failed,
      new Promise<BuildAnswer>((resolve, reject) => {
        onAbort = () => reject(signal.reason as Error);
        signal.addEventListener("abort", onAbort, { once: true });
        worker.on("message", resolve);
        worker.on("error", reject);
      }),
    ]);
    if (answer.kind === "failed") throw new VmsanError(answer.error);
    progress?.(total, total);
    await Promise.all([worker.terminate(), readers.stop()]);
    await rename(aside, request.output);
    return answer.result;
  } finally {
    clearInterval(timer);
    if (onAbort !== undefined) signal.removeEventListener("abort", onAbort);
    await Promise.all([worker.terminate(), readers.stop()]);
    await rm(aside, { force: true });
  }
}
