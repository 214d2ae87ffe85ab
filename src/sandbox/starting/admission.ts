/** How many VMs of one daemon are brought up at the same time, and in which order. */
import { availableParallelism } from "node:os";

/** How long one that has been let in keeps others out, in milliseconds: a guest that hangs is not to stop all. */
const PATIENCE_MS = 20_000;

/** A VM that waits. */
interface Waiting {
  project: string;
  /** The round in which it is let in; each has one VM of a project. */
  round: number;
  enter: () => void;
  /** Told how many are before it. */
  place: ((before: number) => void) | undefined;
}

/**
 * A queue before work that keeps a processor busy. More of it at once than there are processors makes
 * nothing faster: all are ready late instead of some of them early, and emulation slows down by more.
 * Those of one project are let in as they came; projects take turns, so that many of one keep no other's waiting.
 */
export class Admission {
  private readonly limit: number;
  private readonly patienceMs: number;
  private inside = 0;
  /** By rounds, within a round as they came. */
  private readonly queue: Waiting[] = [];
  /** The round of the last that has been let in. */
  private round = 0;

  /** @param limit how many at once; default: one a processor */
  constructor(limit: number = availableParallelism(), patienceMs: number = PATIENCE_MS) {
    this.limit = limit;
    this.patienceMs = patienceMs;
  }

  /**
   * Wait for one's turn.
   * @param project whose it is
   * @param place told how many are before this one, now and whenever that changes; not if there is no wait
   * @returns lets the next one in; may be called more than once
   * @throws the signal's reason
   */
  async enter(
    signal: AbortSignal,
    project: string,
    place?: (before: number) => void,
  ): Promise<() => void> {
    signal.throwIfAborted();
    // Whoever leaves hands its place on, so that nobody slips in before those who wait.
    if (this.inside < this.limit) this.inside += 1;
    else await this.wait(signal, project, place);
    let left = false;
    const leave = (): void => {
      if (left) return;
      left = true;
      clearTimeout(timer);
      this.next();
    };
    const timer = setTimeout(leave, this.patienceMs);
    timer.unref();
    return leave;
  }

  private async wait(
    signal: AbortSignal,
    project: string,
    place?: (before: number) => void,
  ): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      const last = this.queue.findLast((other) => other.project === project);
      const round = last === undefined ? this.round : last.round + 1;
      const waiting: Waiting = {
        project,
        round,
        enter: () => {
          signal.removeEventListener("abort", abort);
          resolve();
        },
        place,
      };
      const abort = (): void => {
        this.queue.splice(this.queue.indexOf(waiting), 1);
        this.tell();
        reject(signal.reason as Error);
      };
      signal.addEventListener("abort", abort, { once: true });
      const later = this.queue.findIndex((other) => other.round > round);
      const at = later === -1 ? this.queue.length : later;
      this.queue.splice(at, 0, waiting);
      this.tell(at);
    });
  }

  /** Give a place to the first that waits, if any does. */
  private next(): void {
    const first = this.queue.shift();
    if (first === undefined) this.inside -= 1;
    else {
      this.round = first.round;
      first.enter();
    }
    this.tell();
  }

  /** Say their places to those from one on. */
  private tell(from = 0): void {
    for (const [before, { place }] of this.queue.entries()) if (before >= from) place?.(before);
  }
}
