/** One operation at a time on one thing, in the order they came. */

/** A queue of operations. */
export class Mutex {
  private tail: Promise<unknown> = Promise.resolve();

  /** Run `body` once everything before it has ended, whatever its outcome. */
  async run<T>(body: () => Promise<T>): Promise<T> {
    const turn = this.tail.then(body, body);
    // The queue goes on after a failure; the failure itself is the caller's.
    this.tail = turn.catch(() => undefined);
    return await turn;
  }
}
