/** Many users of a thing at the same time, or one that changes it: in the order they came. */

/** A queue of operations, of which those that only use the thing go on side by side. */
export class SharedMutex {
  /** Ends with the last operation that is to be alone; never rejects. */
  private tail: Promise<unknown> = Promise.resolve();
  /** Operations since then that others may go on beside; none rejects. */
  private readonly beside = new Set<Promise<unknown>>();

  /** Run `body` beside others of its kind, once whatever came before it and is to be alone has ended. */
  async shared<T>(body: () => Promise<T>): Promise<T> {
    const turn = this.tail.then(body);
    // The queue goes on after a failure; the failure itself is the caller's.
    const ended = turn.catch(() => undefined);
    this.beside.add(ended);
    try {
      return await turn;
    } finally {
      this.beside.delete(ended);
    }
  }

  /** Run `body` once everything before it has ended, whatever its outcome; what comes later waits for it. */
  async alone<T>(body: () => Promise<T>): Promise<T> {
    const turn = Promise.all([this.tail, ...this.beside]).then(body);
    this.tail = turn.catch(() => undefined);
    return await turn;
  }
}
