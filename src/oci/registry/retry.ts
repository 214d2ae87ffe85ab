/** Trying again: few times, later each time, as the server asks, never in a storm. */
import { setTimeout as sleep } from "node:timers/promises";
import { errnoOf, messageOf } from "../../model/errors.ts";
import { PullFailure } from "../http/failure.ts";

/** Limits of trying again. */
export interface RetryLimits {
  /** Failures in a row that are forgiven. */
  budget: number;
  /** Milliseconds before the first new try; doubled each time, with jitter. */
  delayMs: number;
  /** Longest wait that a server may ask for with Retry-After, in milliseconds. */
  longestWaitMs: number;
}

/** Five more tries within about 15 seconds; a server may ask for up to two minutes each. */
export const RETRY_LIMITS: RetryLimits = { budget: 5, delayMs: 500, longestWaitMs: 120_000 };

/** Counts failures of one piece of work and waits between tries. */
export class Retry {
  readonly #limits: RetryLimits;
  readonly #signal: AbortSignal | undefined;
  readonly #refusals: number;
  /** Failures since the last progress. */
  #failures = 0;
  /** Time-outs are dear: two of them end the work whatever the budget. */
  #stalls = 0;

  /**
   * @param limits how often and how long
   * @param refusals refused connections that are forgiven, if fewer: where nobody has answered yet, somebody who does later is
   *   being started this moment, and more often the address is wrong or there is no network
   */
  constructor(limits: RetryLimits, signal?: AbortSignal, refusals = limits.budget) {
    this.#limits = limits;
    this.#signal = signal;
    this.#refusals = refusals;
  }

  /** Enough came through that earlier failures do not count any more. */
  progress(): void {
    this.#failures = 0;
    this.#stalls = 0;
  }

  /**
   * After a failure: wait if another try makes sense, else throw it.
   * @param notify told what happened and the milliseconds of the wait
   */
  async wait(error: unknown, notify: (why: string, ms: number) => void): Promise<void> {
    if (!(error instanceof PullFailure) || !error.retry) throw error;
    this.#failures += 1;
    if (error.code === "ERR_IMAGE_STALLED") this.#stalls += 1;
    if (this.#failures > this.#limits.budget || this.#stalls > 2) throw error;
    if (this.#failures > this.#refusals && errnoOf(error.cause) === "ECONNREFUSED") throw error;
    const asked = error.waitMs;
    if (asked !== undefined && asked > this.#limits.longestWaitMs) {
      throw new PullFailure(
        {
          ...error.toJSON(),
          why: `${error.why ?? ""} It asks to wait for ${Math.round(asked / 1000)} seconds.`,
        },
        false,
        asked,
        error,
      );
    }
    const grown = this.#limits.delayMs * 2 ** (this.#failures - 1);
    // Callers that failed together shall not come back together.
    const ms = Math.max(asked ?? 0, grown * (0.5 + Math.random() / 2));
    notify(error.why ?? messageOf(error), ms);
    await sleep(ms, undefined, this.#signal === undefined ? {} : { signal: this.#signal });
  }
}
