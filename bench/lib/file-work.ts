/** The same work with files in two directories of one guest, by turns: many small files and a large one (test/shares/work.go). */
import { execFileSync } from "node:child_process";
import { join, resolve } from "node:path";
import type { Vm } from "../../src/client/vm.ts";
import { report, summary } from "./measure.ts";
import type { Cost } from "./measure.ts";

/** What is measured, in the order in which each needs what is before it. */
const WORKS = {
  small: ["make", "look", "again", "read", "remove"],
  large: ["write", "fetch", "reread"],
} as const;

/** Two directories to be compared. */
export interface Compared<Side extends string> {
  vm: Vm;
  /** Path of the probe in the guest. */
  probe: string;
  /** Names of the two, which are directories in the guest's root; the first is compared with the second. */
  sides: readonly [Side, Side];
  /** Processor time so far of all that serves one, in milliseconds. */
  cpu: (side: Side) => number;
  rounds: number;
  /** Small files, and MiB of the large one. */
  counts: { small: number; large: number };
}

/** Compile the probe as `probe` in a directory. */
export function buildProbe(dir: string): void {
  execFileSync("go", ["build", "-o", join(dir, "probe"), "."], {
    cwd: resolve(import.meta.dirname, "../../test/shares"),
    env: { ...process.env, CGO_ENABLED: "0" },
  });
}

/** Measure, and report each work and the sum of its kind as JSON lines. */
export async function compare<Side extends string>(
  name: string,
  { vm, probe, sides, cpu, rounds, counts }: Compared<Side>,
): Promise<void> {
  const [one, other] = sides;
  const line = (what: Record<string, unknown>, first: Cost, second: Cost): void => {
    const ratio = first.wallMs / second.wallMs;
    const costs = { [one]: first, [other]: second };
    report({ bench: name, ...what, ...costs, ratio, cpuRatio: first.cpuMs / second.cpuMs });
  };
  for (const kind of ["small", "large"] as const) {
    const works = WORKS[kind];
    const count = counts[kind];
    const costs = new Map<string, Cost[]>();
    for (let round = 0; round < rounds; round += 1) {
      for (const side of round % 2 === 0 ? sides : sides.toReversed()) {
        for (const work of works) {
          const before = cpu(side);
          const said = await asRoot(vm, `${probe} work /${side} ${count} ${work}`);
          const cost = { wallMs: Number(said) * 1000, cpuMs: cpu(side) - before };
          const key = `${side} ${work}`;
          costs.set(key, [...(costs.get(key) ?? []), cost]);
        }
      }
    }
    const of = (side: Side, work: string): Cost => summary(costs.get(`${side} ${work}`) ?? []);
    const total = (side: Side): Cost => sum(works.map((work) => of(side, work)));
    for (const work of works) line({ work, count }, of(one, work), of(other, work));
    line({ work: `all ${kind}`, count }, total(one), total(other));
  }
}

/** Costs of works that follow one another. */
function sum(costs: readonly Cost[]): Cost {
  return costs.reduce((all, { wallMs, cpuMs }) => ({
    wallMs: all.wallMs + wallMs,
    cpuMs: all.cpuMs + cpuMs,
  }));
}

/** Standard output of a script that root runs in the guest. */
export async function asRoot(vm: Vm, script: string): Promise<string> {
  const { stdout, stderr, exitCode } = await vm.exec(["sh", "-ec", script], { user: "root" });
  if (exitCode !== 0) throw new Error(`${script}: ${stderr.toString()}`);
  return stdout.toString();
}
