/** What a start that takes long is at, said by events: nobody has to guess why a pod does not come up. */
import type { ProgressEvent } from "../../../model/progress.ts";
import { formatProgress } from "../../../util/units.ts";
import { Timers } from "../life/timers.ts";

/** After how long that is said first, in milliseconds; then after twice that, and so on. */
const FIRST_MS = 60_000;
const LONGEST_MS = 600_000;

/** Watches the starts of one pod. */
export class StartWatch {
  private readonly tell: (message: string) => void;
  private readonly timers = new Timers();
  private step = "";
  private since = 0;

  /** @param tell by an event */
  constructor(tell: (message: string) => void) {
    this.tell = tell;
  }

  /** A start begins. */
  begin(): void {
    this.end();
    this.since = performance.now();
    this.later(FIRST_MS);
  }

  private later(ms: number): void {
    this.timers.after(ms, () => {
      const seconds = Math.round((performance.now() - this.since) / 1000);
      this.tell(`not started for ${seconds} s: ${this.step}`);
      this.later(Math.min(2 * ms, LONGEST_MS));
    });
  }

  /** It is at this now. */
  at(step: string): void {
    this.step = step;
  }

  /** The same, as the daemon says it. */
  readonly onProgress = (event: ProgressEvent): void => this.at(formatProgress(event));

  /** It is over, however it went. */
  end(): void {
    this.timers.clear();
  }
}
