/** How long the phases of a build take, one after another. */
import { notePhase } from "../util/flow/phases.ts";
import type { Timings } from "../model/vm.ts";

/** Notes phases as they end. */
export class Phases {
  readonly #timings: Timings = {};
  readonly #began = performance.now();
  #from = this.#began;

  /** The phase that has been going on since the last one's end is over. */
  end(name: string): void {
    const now = performance.now();
    this.#timings[name] = Math.round(now - this.#from);
    notePhase(name, this.#from, now);
    this.#from = now;
  }

  /** Milliseconds by phase, in their order, and in total. */
  get timings(): Timings {
    return { ...this.#timings, total: Math.round(performance.now() - this.#began) };
  }
}
