/**
 * bench/start: the command line's own start-up against `node -e 0`, taking turns.
 *
 *     node bench/start.ts [--rounds N]
 *
 * Prints a JSON line a command: medians of wall time and user+system time, and the ratio to
 * bare Node. `list` talks to a daemon that runs already.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { loadavg, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";

const { values } = parseArgs({ options: { rounds: { type: "string", default: "15" } } });
const rounds = Number(values.rounds);
const bin = resolve(import.meta.dirname, "../bin/vmsan");
const dir = mkdtempSync(join(tmpdir(), "vmsan-bench-start-"));
const env = { ...process.env, VMSAN_DIR: dir };

const commands: Record<string, [string, string[]]> = {
  "node -e 0": [process.execPath, ["-e", "0"]],
  "vmsan --version": [bin, ["--version"]],
  "vmsan --help": [bin, ["--help"]],
  "vmsan list": [bin, ["list"]],
};

/** The middle value. */
function median(numbers: number[]): number {
  return numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? Number.NaN;
}

try {
  const samples = new Map<string, number[]>();
  for (let round = -2; round < rounds; round += 1) {
    for (const [name, [file, args]] of Object.entries(commands)) {
      const start = performance.now();
      const { status, stderr } = spawnSync(file, args, { env, encoding: "utf8" });
      if (status !== 0) throw new Error(`${name}: status ${status}: ${stderr}`);
      // The first rounds fill the page cache and the compile cache, and start the daemon.
      if (round >= 0) samples.set(name, [...(samples.get(name) ?? []), performance.now() - start]);
    }
  }
  const base = median(samples.get("node -e 0") ?? []);
  for (const [name, times] of samples) {
    console.log(
      JSON.stringify({
        bench: "start",
        command: name,
        rounds,
        medianMs: Math.round(median(times)),
        ratio: Number((median(times) / base).toFixed(2)),
        load: loadavg()[0],
      }),
    );
  }
} finally {
  spawnSync(bin, ["daemon", "stop"], { env });
  rmSync(dir, { recursive: true, force: true });
}
