/** Things to be done later. */

/** Longest time that a timer of Node.js can have, in milliseconds; a longer one ends at once. */
export const LONGEST_MS = 2 ** 31 - 1;

/** Timers that are given up together; none keeps the process. */
export class Timers {
  /** Made when something waits: of the six of a pod most have nothing to do for as long as it runs. */
  private waiting: Set<NodeJS.Timeout> | undefined;

  /** Do something after so many milliseconds. */
  after(ms: number, task: () => void): void {
    const timer = setTimeout(
      () => {
        this.waiting?.delete(timer);
        task();
      },
      Math.min(ms, LONGEST_MS),
    );
    timer.unref();
    this.waiting ??= new Set();
    this.waiting.add(timer);
  }

  /** Give up what waits. */
  clear(): void {
    for (const timer of this.waiting ?? []) clearTimeout(timer);
    this.waiting = undefined;
  }
}
