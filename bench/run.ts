/**
 * bench/run: from `vmsan run` to the first byte of the command's output, by phase.
 *
 *     node bench/run.ts [--rounds N]
 *
 * `cold`: kernel and base image are there, nothing of them is in the image or disk caches;
 * `warm`: everything is cached. The alternative in the same run is the same guest command through
 * `vmsan exec` in a VM that runs already: what is left when nothing needs to be made.
 */
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, mkdirSync, rmSync, symlinkSync } from "node:fs";
import { loadavg, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";

const { values } = parseArgs({ options: { rounds: { type: "string", default: "5" } } });
const rounds = Number(values.rounds);
const root = resolve(import.meta.dirname, "..");
const bin = join(root, "bin/vmsan");
const prepared = process.env["VMSAN_DIR"] ?? join(root, ".cache/vmsan");

/** Milliseconds from the start of a command to its first byte of output, and its timings. */
async function firstByte(dir: string, args: string[]): Promise<{ ms: number; phases: object }> {
  const start = performance.now();
  const child = spawn(bin, args, { env: { ...process.env, VMSAN_DIR: dir } });
  let ms = Number.NaN;
  let stderr = "";
  child.stdout.once("data", () => (ms = performance.now() - start));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  const code = await new Promise((done) => child.on("close", done));
  if (code !== 0) throw new Error(`${args.join(" ")}: status ${String(code)}: ${stderr}`);
  const phases = /^vm-[0-9a-f]{8}: (\{.*\})$/m.exec(stderr)?.[1] ?? "{}";
  return { ms, phases: JSON.parse(phases) as object };
}

/** The middle value. */
function median(numbers: number[]): number {
  return numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? Number.NaN;
}

const dir = mkdtempSync(join(tmpdir(), "vmsan-bench-run-"));
const call = (...args: string[]): string => {
  const result = spawnSync(bin, args, {
    env: { ...process.env, VMSAN_DIR: dir },
    encoding: "utf8",
  });
  if (result.status !== 0) throw new Error(`${args.join(" ")}: ${result.stderr}`);
  return result.stdout.trim();
};
try {
  for (const name of ["kernels", "runtimes", "initramfs", "probes"]) {
    mkdirSync(join(prepared, name), { recursive: true });
    symlinkSync(join(prepared, name), join(dir, name));
  }
  const run = ["run", "--verbose", "base", "--", "echo", "hi"];
  const report = (what: string, ms: number[], phases: object, ratio?: number): void =>
    console.log(
      JSON.stringify({
        bench: "run",
        what,
        rounds: ms.length,
        medianMs: Math.round(median(ms)),
        phases,
        ...(ratio === undefined ? {} : { ratio: Number(ratio.toFixed(1)) }),
        load: loadavg()[0],
      }),
    );
  call("list");
  const cold: number[] = [];
  let coldPhases: object = {};
  for (let i = 0; i < Math.min(rounds, 3); i += 1) {
    call("image", "prune", "--all");
    const { ms, phases } = await firstByte(dir, run);
    cold.push(ms);
    coldPhases = phases;
  }
  const warm: number[] = [];
  let warmPhases: object = {};
  for (let i = 0; i < rounds; i += 1) {
    const { ms, phases } = await firstByte(dir, run);
    warm.push(ms);
    warmPhases = phases;
  }
  const id = call("create");
  const exec: number[] = [];
  for (let i = 0; i < rounds; i += 1)
    exec.push((await firstByte(dir, ["exec", id, "echo", "hi"])).ms);
  call("rm", "-f", id);
  report("cold", cold, coldPhases, median(cold) / median(exec));
  report("warm", warm, warmPhases, median(warm) / median(exec));
  report("exec in a running VM", exec, {}, 1);
} finally {
  spawnSync(bin, ["daemon", "stop"], { env: { ...process.env, VMSAN_DIR: dir } });
  rmSync(dir, { recursive: true, force: true });
}
