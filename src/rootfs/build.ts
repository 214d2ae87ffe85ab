/** Runs one build in a process of its own, so that its memory goes away with it. */
import { spawn, type ChildProcess } from "node:child_process";
import { existsSync } from "node:fs";
import { rename, rm } from "node:fs/promises";
import { VmsanError } from "../model/errors.ts";
import type { BuildContext } from "../model/disk.ts";
import type { LayerBlob } from "../model/image.ts";
import { DEFAULT_LIMITS } from "../layers/layers.ts";
import { entryPoint, withCompileCache } from "../util/package.ts";
import { asidePath } from "./aside.ts";
import type {
  Arrived,
  BuildAnswer,
  BuildRequest,
  BuildResult,
  ProcessMessage,
  ProcessOrder,
} from "./protocol.ts";

/** Characters of a broken builder's last words that are kept. */
const LAST_WORDS = 2000;

/** What {@link runBuild} takes; the rest of an order has defaults. */
export type RunRequest = Omit<BuildRequest, "limits"> & {
  limits?: BuildRequest["limits"];
  /** Decompress with Node's public streams only. */
  streams?: boolean;
};

/** The error for a building process that ended without an answer. */
function broken(output: string, how: string, words: string): VmsanError {
  return new VmsanError({
    code: "ERR_DISK_BUILD",
    message: `Cannot build the disk image ${output}`,
    why: `The building process ended with ${how}. ${words.trim()}`.trim(),
    fix: "If memory ran out (SIGKILL, SIGABRT), free some and try again; else see `vmsan daemon logs`.",
  });
}

/** Give the order and wait for the answer. Rejects when the process ends without one. */
function answerOf(
  child: ChildProcess,
  order: ProcessOrder,
  progress: (done: number) => void,
): Promise<BuildAnswer> {
  return new Promise((resolve, reject) => {
    let words = "";
    const fail = (how: string): void => reject(broken(order.output, how, words));
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      words = (words + text).slice(-LAST_WORDS);
    });
    child.on("message", (message: ProcessMessage) => {
      if (message.kind === "progress") progress(message.done);
      else resolve(message);
    });
    child.on("error", (error) => fail(error.message));
    child.on("close", (status, signal) => fail(signal ?? `status ${status}`));
    child.send(order, (error) => {
      // What ended it is said by "close", with its last words.
      if (error !== null && child.pid === undefined) fail(error.message);
    });
  });
}

/** Tell a building process what comes of its layers. @returns ends it */
function passOn(child: ChildProcess, { coming }: BuildContext): () => void {
  const follow = coming?.follow((layer, bytes) => {
    const arrived: Arrived = { layer, bytes };
    // One that has ended is seen by whoever waits for its answer.
    if (child.connected) child.send(arrived, () => undefined);
  });
  return follow ?? (() => undefined);
}

/** End a building process and wait until it is gone. */
async function end(child: ChildProcess): Promise<void> {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  await new Promise((resolve) => {
    child.once("exit", resolve);
    child.kill("SIGKILL");
  });
}

/**
 * Merge layers and write them out. `request.output` must not exist, and appears when it is complete;
 * on failure or abort nothing is left beside it (see aside.ts for a killed process).
 */
export async function runBuild(
  layers: LayerBlob[],
  request: RunRequest,
  context: BuildContext,
): Promise<BuildResult> {
  const { signal, progress, coming } = context;
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
  const { streams = false, limits = DEFAULT_LIMITS, ...rest } = request;
  const total = layers.reduce((sum, layer) => sum + layer.size, 0);
  const child = spawn(process.execPath, [entryPoint("rootfs/builder")], {
    stdio: ["ignore", "ignore", "pipe", "ipc"],
    env: withCompileCache(),
    serialization: "advanced",
  });
  const order: ProcessOrder = {
    ...rest,
    output: aside,
    limits,
    layers,
    streams,
    ...(coming && { partials: coming.partials }),
  };
  let onAbort: (() => void) | undefined;
  let leave: (() => void) | undefined;
  let done = false;
  try {
    const answered = answerOf(child, order, (done) => progress?.(Math.min(total, done), total));
    leave = passOn(child, context);
    const answer = await Promise.race([
      answered,
      new Promise<never>((_, reject) => {
        onAbort = () => reject(signal.reason as Error);
        signal.addEventListener("abort", onAbort, { once: true });
      }),
    ]);
    if (answer.kind === "failed") throw new VmsanError(answer.error);
    progress?.(total, total);
    await rename(aside, request.output);
    done = true;
    return answer.result;
  } finally {
    leave?.();
    if (onAbort !== undefined) signal.removeEventListener("abort", onAbort);
    const ended = end(child);
    // What has answered writes nothing any more; the kernel takes its time to take its memory back.
    if (!done) await ended;
    await rm(aside, { force: true });
  }
}
