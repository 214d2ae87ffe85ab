/** Files of a pod are written anew before a token in them ends. */
import type { Pod } from "../../../schema/pod.ts";
import { Timers } from "./timers.ts";

/** Longest until the files of a pod that was found running are written anew, in milliseconds. */
const FOUND_MS = 600_000;
/** Shortest until that, and how long after it has failed. */
const SHORTEST_MS = 10_000;
const RETRY_MS = 60_000;

/** Has the files of one pod written anew, time after time. */
export class Renewal {
  private readonly timers = new Timers();
  private readonly renew: () => Promise<number | undefined>;
  private readonly complain: (error: unknown) => void;

  /** @param renew writes them; gives when to do so again, in milliseconds since the epoch; undefined: never */
  constructor(renew: () => Promise<number | undefined>, complain: (error: unknown) => void) {
    this.renew = renew;
    this.complain = complain;
  }

  /** Write them at that time, in milliseconds since the epoch. */
  at(time: number | undefined): void {
    if (time === undefined) return;
    this.timers.after(Math.max(SHORTEST_MS, time - Date.now()), () => {
      this.renew()
        .then((next) => this.at(next))
        .catch((error: unknown) => {
          this.complain(error);
          this.at(Date.now() + RETRY_MS);
        });
    });
  }

  /** Of a pod that was found running it is not known when its tokens end. */
  soon({ spec }: Pod): void {
    const hasToken = spec.volumes?.some(({ projected }) =>
      projected?.sources?.some((source) => source.serviceAccountToken),
    );
    if (hasToken === true) this.at(Date.now() + Math.random() * FOUND_MS);
  }

  /** What waits is given up. */
  end(): void {
    this.timers.clear();
  }
}
