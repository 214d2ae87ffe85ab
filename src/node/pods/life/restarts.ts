/** When a container that has ended is started again. Pure. */

const FIRST_MS = 10_000;
const LONGEST_MS = 300_000;
/** A run as long as that makes earlier failures forgotten. */
const LASTING_MS = 600_000;

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
