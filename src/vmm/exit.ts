/** Learning that a VMM process has ended, also one that an earlier daemon started. */
import type { ChildProcess } from "node:child_process";
import { VmsanError, messageOf } from "../model/errors.ts";
import type { ProcessIdentity } from "../model/vm.ts";
import { isAlive, signalProcess } from "../util/process-identity.ts";
import type { VmmExit } from "./driver.ts";

/** Milliseconds between looks at a process that is not our child. */
const lookEveryMs = 200;

/**
 * The error of a VM that does not run (any more): ERR_VM_NOT_RUNNING.
 * @param program the VMM's name, for people
 */
export function vmmGone(id: string, program: string, cause?: unknown): VmsanError {
  return new VmsanError(
    {
      code: "ERR_VM_NOT_RUNNING",
      message: `The VM ${id} does not run`,
      why: cause === undefined ? `Its ${program} process has ended.` : messageOf(cause),
      fix: `Start it with \`vmsan start ${id}\`; its console.log tells why it ended.`,
    },
    cause,
  );
}

/**
 * Resolves when exactly that process is gone.
 * @param child when it is our child: its status is then known
 * @param hint resolves when something suggests that the process has ended (a closed socket)
 */
export function processExit(
  identity: ProcessIdentity,
  child?: ChildProcess,
  hint?: Promise<void>,
): Promise<VmmExit> {
  if (child !== undefined) {
    return new Promise((resolve) => {
      if (child.exitCode !== null || child.signalCode !== null) {
        resolve({ code: child.exitCode, signal: child.signalCode });
      } else child.once("exit", (code, signal) => resolve({ code, signal }));
    });
  }
  return new Promise((resolve) => {
    // Node has no pidfd, so a stranger is looked at now and then.
    const look = (): void => {
      if (isAlive(identity)) return;
      clearInterval(timer);
      resolve({ code: null, signal: null });
    };
    const timer = setInterval(look, lookEveryMs);
    timer.unref();
    void hint?.then(look);
    look();
  });
}

/** Resolves as `promise` does, or with undefined after `ms`. */
export async function within<T>(promise: Promise<T>, ms: number): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined;
  try {
    return await Promise.race([
      promise,
      new Promise<undefined>((resolve) => {
        timer = setTimeout(() => resolve(undefined), ms);
      }),
    ]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Kill a process and wait until it is gone, at most 10 s (a process in an uninterruptible
 * system call cannot be waited for).
 * @returns whether it is gone
 */
export async function killAndWait(identity: ProcessIdentity): Promise<boolean> {
  signalProcess(identity, "SIGKILL");
  // Most are gone at once.
  for (let waited = 0, wait = 1; waited < 10_000; waited += wait, wait = Math.min(2 * wait, 10)) {
    if (!isAlive(identity)) return true;
    const pause = wait;
    await new Promise((resolve) => {
      setTimeout(resolve, pause);
    });
  }
  return !isAlive(identity);
}
