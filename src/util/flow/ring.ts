/** Numbered lines of which the last ones are kept, and that can be followed. */

/** A line with its number and time. */
export type Numbered<T> = { seq: number; time: string } & T;

/** A bounded log in memory. */
export class Ring<T extends object> {
  private readonly capacity: number;
  private lines: Numbered<T>[] = [];
  private seq: number;
  private readonly waiting = new Set<() => void>();
  private closed = false;

  /**
   * @param capacity lines that are kept at least; twice as many at most
   * @param before number before the first line's
   * @param lines those that are there already, without gaps in their numbers
   */
  constructor(capacity: number, before = 0, lines: readonly Numbered<T>[] = []) {
    this.capacity = capacity;
    this.lines = [...lines];
    this.seq = lines.at(-1)?.seq ?? before;
  }

  /** Number of the last line. */
  get last(): number {
    return this.seq;
  }

  /** Number of the first line that is kept; one that will come when there is none. */
  get first(): number {
    return this.lines[0]?.seq ?? this.seq + 1;
  }

  /** Add a line. */
  add(line: T): Numbered<T> {
    this.seq += 1;
    const numbered = { seq: this.seq, time: new Date().toISOString(), ...line };
    this.lines.push(numbered);
    if (this.lines.length > 2 * this.capacity) this.lines = this.lines.slice(-this.capacity);
    this.wake();
    return numbered;
  }

  /** Lines after a number, oldest first. */
  since(seq: number): Numbered<T>[] {
    // Numbers go up by one, so the place is known.
    return this.lines.slice(Math.max(0, seq + 1 - this.first));
  }

  /** No more lines will come. */
  close(): void {
    this.closed = true;
    this.wake();
  }

  private wake(): void {
    for (const resolve of this.waiting) resolve();
    this.waiting.clear();
  }

  /**
   * Lines after a number as they come, until the log is closed or the signal aborts. A reader that is
   * slower than the log finds a gap in the numbers.
   * @param from default: those that come from now on
   */
  async *follow(signal: AbortSignal, from = this.seq): AsyncGenerator<Numbered<T>> {
    // What was before the first line is not waited for.
    let last = Math.max(from, this.first - 1);
    while (!signal.aborted) {
      for (const line of this.since(last)) {
        last = line.seq;
        yield line;
        if (signal.aborted) return;
      }
      if (this.seq > last) continue;
      if (this.closed) return;
      await new Promise<void>((resolve) => {
        const done = (): void => {
          signal.removeEventListener("abort", done);
          this.waiting.delete(done);
          resolve();
        };
        this.waiting.add(done);
        signal.addEventListener("abort", done, { once: true });
      });
    }
  }
}
