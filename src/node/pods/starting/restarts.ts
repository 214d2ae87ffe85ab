/** When a container that has ended, or could not be started, is started again. Pure. */

const FIRST_MS = 10_000;
const LONGEST_MS = 300_000;
/** A run as long as that makes earlier failures forgotten. */
const LASTING_MS = 600_000;
/** Pauses between attempts to start. */
const RETRY_MS = 2_000;
const LONGEST_RETRY_MS = 20_000;
const LONGEST_PULL_RETRY_MS = 300_000;

/** Whether a container that ended so is to run again. */
export function restarts(policy: string | null | undefined, exitCode: number): boolean {
  if (policy === "Never") return false;
  return policy === "OnFailure" ? exitCode !== 0 : true;
}

/** Counts ends in a row. */
export class Backoff {
  private ends = 0;

  /** Milliseconds until the next start: the first one is at once. @param ranMs how long it has run */
  next(ranMs: number): number {
    this.ends = ranMs >= LASTING_MS ? 1 : this.ends + 1;
    if (this.ends === 1) return 0;
    return Math.min(LONGEST_MS, FIRST_MS * 2 ** Math.min(this.ends - 2, 10));
  }
}

/** Milliseconds until the next attempt to start. @param failed how many have failed before the last one */
export function retryPause(failed: number, pulling: boolean): number {
  const longest = pulling ? LONGEST_PULL_RETRY_MS : LONGEST_RETRY_MS;
  return Math.min(longest, RETRY_MS * 2 ** Math.min(failed, 10));
}
