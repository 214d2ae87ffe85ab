/** Work on the blobs of an image, a few at a time. */

/** Blobs fetched or sent at the same time. */
const PARALLEL = 6;

/** Says how many are worked on at the same time, while they are. */
export interface Width {
  /** How many now. */
  now(): number;
  /** Called whenever there may be more than before; the function ends that. */
  onMore(call: () => void): () => void;
}

/**
 * Run tasks, a few at a time, in their order; the first failure stops those that wait and those that run.
 * @param width how many at a time; default: six
 */
export async function inParallel(
  tasks: readonly ((signal: AbortSignal) => Promise<void>)[],
  signal?: AbortSignal,
  width?: Width,
): Promise<void> {
  const failed = new AbortController();
  const both = signal === undefined ? failed.signal : AbortSignal.any([signal, failed.signal]);
  const failures: unknown[] = [];
  const waiting = [...tasks];
  await new Promise<void>((resolve) => {
    let running = 0;
    const startMore = (): void => {
      const most = width?.now() ?? PARALLEL;
      while (failures.length === 0 && running < most) {
        const task = waiting.shift();
        if (task === undefined) break;
        running += 1;
        void (async () => {
          try {
            await task(both);
          } catch (error) {
            failures.push(error);
            failed.abort(error);
          }
          running -= 1;
          startMore();
        })();
      }
      if (running > 0) return;
      stop?.();
      resolve();
    };
    const stop = width?.onMore(startMore);
    startMore();
  });
  if (failures.length > 0) throw failures[0];
}

/** How often is looked whether one more helps, in milliseconds. */
const LOOK_MS = 250;
/** One more has helped when so many times as many bytes come. */
const WORTH = 1.2;
const LEAST = 2;
/** Looks until one more is tried again. */
const PAUSE = 8;

/**
 * As many at a time as make bytes come faster: one more after the other, until one does not help. Where one connection
 * fills the way to the registry, what is needed first comes first, instead of everything at the end.
 */
export class AsManyAsHelp implements Width {
  readonly #bytes: () => number;
  #width = LEAST;

  /** @param bytes that have come so far, of all together */
  constructor(bytes: () => number) {
    this.#bytes = bytes;
  }

  now(): number {
    return this.#width;
  }

  onMore(call: () => void): () => void {
    let before = this.#bytes();
    let rate = 0;
    let pause = 0;
    let isNew = false;
    const timer = setInterval(() => {
      const now = this.#bytes();
      const came = now - before;
      before = now;
      pause = Math.max(0, pause - 1);
      // Where nothing has come, something else is waited for.
      if (came === 0 || pause > 0) return;
      if (isNew && came < rate * WORTH) {
        // The last one has not helped: it goes on, and nobody takes its place. What is so may change, or was chance.
        this.#width = Math.max(LEAST, this.#width - 1);
        isNew = false;
        pause = PAUSE;
        return;
      }
      rate = came;
      isNew = this.#width < PARALLEL;
      if (!isNew) return;
      this.#width += 1;
      call();
    }, LOOK_MS);
    return () => clearInterval(timer);
  }
}
