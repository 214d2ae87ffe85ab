/** The builds that use the builder now. */

/** Counts them, and tells those that go on from those that only have yet to leave. */
export class BuildUsers {
  /** What interrupts each. */
  readonly #signals = new Set<AbortSignal>();
  readonly #waiting = new Set<() => void>();

  /** How many there are. */
  get count(): number {
    return this.#signals.size;
  }

  /** One more. @param signal its own, which interrupts it */
  enter(signal: AbortSignal): void {
    this.#signals.add(signal);
  }

  /** One less. */
  leave(signal: AbortSignal): void {
    this.#signals.delete(signal);
    for (const wake of this.#waiting) wake();
  }

  /** Resolves when there is none any more. @throws the signal's reason */
  async none(signal: AbortSignal): Promise<void> {
    while (this.count > 0) await this.#change(signal);
  }

  /**
   * Resolves once one goes on, or none is there: those that were interrupted clear away what they have had before they leave.
   * @param limit gives up waiting
   */
  async settled(limit: AbortSignal): Promise<void> {
    const leaving = (): boolean =>
      this.count > 0 && [...this.#signals].every(({ aborted }) => aborted);
    // Given up: they are counted as they are.
    while (leaving() && !limit.aborted) await this.#change(limit).catch(() => undefined);
  }

  /** The next time that one leaves. */
  async #change(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const abort = (): void => reject(signal.reason as Error);
    this.#waiting.add(resolve);
    signal.addEventListener("abort", abort, { once: true });
    try {
      await promise;
    } finally {
      this.#waiting.delete(resolve);
      signal.removeEventListener("abort", abort);
    }
  }
}
