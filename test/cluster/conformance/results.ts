/** How tests went, over several runs: what has ended in one of them need not be run again. */
import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { nameOf } from "./specs.ts";
import type { Spec } from "./specs.ts";

/** What became of one test. */
export interface Ended {
  passed: boolean;
  /** What it said as it failed. */
  why: string;
  seconds: number;
}

/** Of one run. */
export interface RunFacts {
  minutes: number;
  /** Tests at a time. */
  together: number;
  /** Of the machine at its end. */
  load: number;
}

/** All that is known. */
export class Results {
  private readonly path: string;
  private readonly ended: Map<string, Ended>;
  readonly facts: RunFacts[];

  private constructor(path: string, ended: Map<string, Ended>, facts: RunFacts[]) {
    this.path = path;
    this.ended = ended;
    this.facts = facts;
  }

  /** What earlier runs have left in a directory. */
  static async load(dir: string): Promise<Results> {
    const path = join(dir, "ended.json");
    if (!existsSync(path)) return new Results(path, new Map(), []);
    type Kept = { ended: Record<string, Ended>; facts: RunFacts[] };
    const { ended, facts } = JSON.parse(await readFile(path, "utf8")) as Kept;
    return new Results(path, new Map(Object.entries(ended)), facts);
  }

  /** How many runs there were. */
  get runs(): number {
    return this.facts.length;
  }

  /** By a test's name with its labels. */
  get(name: string): Ended | undefined {
    return this.ended.get(name);
  }

  /** Take in a run. */
  async add(specs: readonly Spec[], facts: RunFacts): Promise<void> {
    for (const spec of specs) {
      this.ended.set(nameOf(spec), {
        passed: spec.State === "passed",
        why: spec.Failure?.Message ?? "",
        seconds: spec.RunTime / 1e9,
      });
    }
    this.facts.push(facts);
    const kept = { ended: Object.fromEntries(this.ended), facts: this.facts };
    await writeFile(this.path, JSON.stringify(kept, undefined, 1));
  }
}
