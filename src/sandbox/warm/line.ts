/**
 * The line of templates that are to be made: one after the other, each when the host has a moment for it. A kind that is wanted again keeps
 * its place, so that whoever starts VMs all the time has its template in the end; one that is there already waits for nothing.
 */

/**
 * How many may wait, at most; those that were wanted last. Each is a minute's work on a busy host, and
 * whoever asks for VMs can ask for any number of kinds.
 */
const MOST_WAITING = 8;
/** How long one that could not be made is not tried again, in milliseconds: it has kept the others waiting, perhaps for minutes. */
const REST_MS = 10 * 60_000;
/** Of how many that is remembered. */
const MOST_FAILED = 64;

/** What a line needs to know. */
export interface LineOptions {
  /** Whether a template is there. */
  isThere: (key: string) => Promise<boolean>;
  /** Resolves when there is a moment for one. */
  whenQuiet: () => Promise<void>;
  /** Told of one that could not be made; without a key, that none can be. */
  failed: (error: unknown, key?: string) => void;
  /** Ends it. */
  signal: AbortSignal;
}

/** Those that wait, and the one that is being made. */
export class MakingLine {
  private readonly options: LineOptions;
  /** By key, in the order in which they will be made. */
  private readonly waiting = new Map<string, { make: () => Promise<void>; wanted: number }>();
  private count = 0;
  /** When those could not be made that were tried last, by key. */
  private readonly tried = new Map<string, number>();
  private making: Promise<void> | undefined;

  /** @param options what it needs to know */
  constructor(options: LineOptions) {
    this.options = options;
  }

  /** Keys of those that wait, the next one first. */
  get keys(): string[] {
    return [...this.waiting.keys()];
  }

  /** Have one made when its turn comes. @param make on failure nothing of it is left */
  add(key: string, make: () => Promise<void>): void {
    if (this.options.signal.aborted) return;
    if (Date.now() - (this.tried.get(key) ?? 0) < REST_MS) return;
    this.count += 1;
    // Not at the end: behind others that are wanted all the time it would never be made.
    this.waiting.set(key, { make, wanted: this.count });
    if (this.waiting.size > MOST_WAITING) {
      const [longest] = [...this.waiting].toSorted(([, a], [, b]) => a.wanted - b.wanted);
      if (longest !== undefined) this.waiting.delete(longest[0]);
    }
    this.making ??= this.makeAll();
  }

  private async makeAll(): Promise<void> {
    const { isThere, whenQuiet, failed, signal } = this.options;
    try {
      for (;;) {
        for (const key of this.keys) if (await isThere(key)) this.waiting.delete(key);
        if (this.waiting.size === 0) return;
        await whenQuiet();
        const [next] = this.waiting;
        if (next === undefined) return;
        const [key, { make }] = next;
        this.waiting.delete(key);
        try {
          if (!(await isThere(key))) await make();
        } catch (error) {
          // One that cannot be made keeps none of the others from being made.
          if (signal.aborted) return;
          failed(error, key);
          this.rest(key);
        }
      }
    } catch (error) {
      if (!signal.aborted) failed(error);
    } finally {
      // At once: whoever comes from now on begins anew.
      this.making = undefined;
    }
  }

  private rest(key: string): void {
    this.waiting.delete(key);
    this.tried.delete(key);
    this.tried.set(key, Date.now());
    const [first] = this.tried.keys();
    if (this.tried.size > MOST_FAILED && first !== undefined) this.tried.delete(first);
  }

  /** Forget those that wait, once the signal has ended what is under way; nothing of it is left then. */
  async close(): Promise<void> {
    this.waiting.clear();
    await this.making;
  }
}
