/**
 * bench/run: from `vmsan run` to the first byte of the command's output, by phase.
 *
 *     node bench/run.ts [--rounds N]
 *
 * `cold`: kernel and base image are there, nothing of them is in the image or disk caches;
 * `warm`: everything is cached. The alternative in the same run is the same guest command through
 * `vmsan exec` in a VM that runs already: what is left when nothing needs to be made.
 */
import { spawn } from "node:child_process";
import { mkdirSync, symlinkSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { bench, measured } from "./lib/bench.ts";
import { callVmsan, daemonOf, ownHome, vmsan } from "./lib/home.ts";
import { childrenCpu, processCpu, report, summary } from "./lib/measure.ts";
import type { Cost } from "./lib/measure.ts";

const { values } = parseArgs({ options: { rounds: { type: "string", default: "5" } } });
const rounds = Number(values.rounds);
const root = resolve(import.meta.dirname, "..");
const prepared = process.env["VMSAN_DIR"] ?? join(root, ".cache/vmsan");

/** From the start of a command to its first byte of output, what that and its end cost, and its timings. */
async function firstByte(
  env: NodeJS.ProcessEnv,
  daemon: number,
  args: string[],
): Promise<{ cost: Cost; phases: object }> {
  const before = [childrenCpu(), processCpu(daemon)] as const;
  const start = performance.now();
  const child = spawn(vmsan, args, { env });
  measured(child);
  let wallMs = Number.NaN;
  let stderr = "";
  child.stdout.once("data", () => (wallMs = performance.now() - start));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  const code = await new Promise((done) => child.on("close", done));
  if (code !== 0) throw new Error(`${args.join(" ")}: status ${String(code)}: ${stderr}`);
  const phases = /^vm-[0-9a-f]{8}: (\{.*\})$/m.exec(stderr)?.[1] ?? "{}";
  const cost = {
    wallMs,
    cpuMs: childrenCpu() - before[0],
    daemonCpuMs: processCpu(daemon) - before[1],
  };
  return { cost, phases: JSON.parse(phases) as object };
}

await bench("run", async (own) => {
  const env = ownHome(own);
  for (const name of ["kernels", "runtimes", "initramfs", "probes"]) {
    mkdirSync(join(prepared, name), { recursive: true });
    mkdirSync(env.VMSAN_DIR, { recursive: true });
    symlinkSync(join(prepared, name), join(env.VMSAN_DIR, name));
  }
  const daemon = daemonOf(env);
  /** Run it so often; gives the whole, and the phases of the last. */
  const measure = async (
    times: number,
    args: string[],
    before: () => void = () => undefined,
  ): Promise<{ rounds: number; phases: object } & Cost> => {
    const costs: Cost[] = [];
    let phases: object = {};
    for (let i = 0; i < times; i += 1) {
      before();
      const one = await firstByte(env, daemon, args);
      costs.push(one.cost);
      phases = one.phases;
    }
    return { rounds: times, ...summary(costs), phases };
  };
  const words = ["run", "--verbose", "base", "--", "echo", "hi"];
  const cold = await measure(Math.min(rounds, 3), words, () => {
    callVmsan(env, "image", "prune", "--all");
  });
  const warm = await measure(rounds, words);
  const exec = await measure(rounds, ["exec", callVmsan(env, "create"), "echo", "hi"]);
  for (const [what, line] of Object.entries({ cold, warm, "exec in a running VM": exec })) {
    report({ bench: "run", what, ...line, ratio: line.wallMs / exec.wallMs });
  }
});
