/** So many at a time. */

/** Lets a number of tasks run at once; the others wait in order. */
export class Slots {
  private free: number;
  private readonly waiting: (() => void)[] = [];

  /** @param count tasks at a time */
  constructor(count: number) {
    this.free = count;
  }

  /** Run a task when it is its turn. @param signal gives up waiting */
  async run<T>(task: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    if (this.free > 0) this.free -= 1;
    else {
      await new Promise<void>((resolve, reject) => {
        const enter = (): void => {
          signal?.removeEventListener("abort", leave);
          resolve();
        };
        const leave = (): void => {
          this.waiting.splice(this.waiting.indexOf(enter), 1);
          reject(signal?.reason as Error);
        };
        if (signal?.aborted === true) {
          reject(signal.reason as Error);
          return;
        }
        this.waiting.push(enter);
        signal?.addEventListener("abort", leave, { once: true });
      });
    }
    try {
      return await task();
    } finally {
      const next = this.waiting.shift();
      if (next === undefined) this.free += 1;
      else next();
    }
  }
}
