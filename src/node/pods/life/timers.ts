/** Things to be done later. */

/** Longest time that a timer of Node.js can have, in milliseconds; a longer one ends at once. */
export const LONGEST_MS = 2 ** 31 - 1;

/** Timers that are given up together; none keeps the process. */
export class Timers {
  private readonly waiting = new Set<NodeJS.Timeout>();

  /** Do something after so many milliseconds. */
  after(ms: number, task: () => void): void {
    const timer = setTimeout(
      () => {
        this.waiting.delete(timer);
        task();
      },
      Math.min(ms, LONGEST_MS),
    );
    timer.unref();
    this.waiting.add(timer);
  }

  /** Give up what waits. */
  clear(): void {
    for (const timer of this.waiting) clearTimeout(timer);
    this.waiting.clear();
  }
}
