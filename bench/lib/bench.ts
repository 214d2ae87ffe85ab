/**
 * bench/lib: what all measurements share.
 *
 * bench.ts: a measurement that leaves nothing behind, also when it is interrupted.
 */
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { constants, tmpdir } from "node:os";
import { join } from "node:path";

/** What a measurement is given. */
export interface Bench {
  /** A temporary directory of its own. */
  dir: string;
  /** What is to be undone at the end, the last first. */
  defer: (undo: () => void | Promise<void>) => void;
}

/** Programs that run for the measurement. */
const running = new Set<ChildProcess>();

/**
 * A program that is part of the measurement: at an interrupt it ends before anything is undone, because
 * it might make again what it finds missing, as vmsan does with its daemon.
 */
export function measured(child: ChildProcess): void {
  running.add(child);
  child.once("close", () => running.delete(child));
}

/** End what runs, and wait for it. */
async function endRunning(): Promise<void> {
  await Promise.all(
    [...running].map(async (child) => {
      const closed = once(child, "close");
      child.kill("SIGKILL");
      await closed;
    }),
  );
}

/** How long undoing may take after an interrupt, in milliseconds. */
const UNDO_LIMIT_MS = 20_000;

/**
 * Run a measurement; then undo what it has made, whether it ended, failed, or was interrupted by
 * SIGINT, SIGTERM or SIGHUP (then this process ends with 128 and the signal's number).
 */
export async function bench(name: string, body: (bench: Bench) => Promise<void>): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), `vmsan-bench-${name}-`));
  const undos: (() => void | Promise<void>)[] = [
    () => rmSync(dir, { recursive: true, force: true }),
  ];
  let undone: Promise<void> | undefined;
  const undo = async (): Promise<void> => {
    await endRunning();
    for (let next = undos.pop(); next !== undefined; next = undos.pop()) {
      try {
        await next();
      } catch (error) {
        // The rest has to be undone all the same.
        console.error(`bench: cannot clean up: ${String(error)}`);
      }
    }
  };
  const interrupted = (signal: NodeJS.Signals): void => {
    if (undone !== undefined) return;
    undone = undo();
    const status = 128 + constants.signals[signal];
    setTimeout(() => process.exit(status), UNDO_LIMIT_MS).unref();
    void undone.then(() => process.exit(status));
  };
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, interrupted);
  // A reader that leaves (`… | head -1`) is an interrupt like any other.
  process.stdout.on("error", () => interrupted("SIGPIPE"));
  try {
    await body({
      dir,
      defer: (next) => {
        // Made while everything is being undone already.
        if (undone === undefined) undos.push(next);
        else void next();
      },
    });
  } catch (error) {
    // An interrupt ends what was measured; that is no failure of it.
    if (undone === undefined) throw error;
  } finally {
    await (undone ??= undo());
  }
}
