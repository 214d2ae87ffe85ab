/**
 * bench/snapshot: warm starts against cold ones, clones against what QEMU itself needs, and how long a
 * VM stands still, taking turns in one run.
 *
 *     node bench/snapshot.ts [--rounds N] [--clones N] [--only starts|reply|pauses|clones]
 *
 * Prints a JSON line a figure: medians of both sides and their ratio. CPU is user and system time of
 * the command, its daemon and the VMM, read from /proc and from the command's own usage.
 */
import { spawn, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync } from "node:fs";
import { loadavg, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { Vmsan } from "../src/client/vmsan.ts";
import { bareRestore } from "./lib/bare-restore.ts";

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "5" },
    clones: { type: "string", default: "30" },
    only: { type: "string" },
  },
});
const rounds = Number(values.rounds);
/** Whether a part is to be run. */
const wants = (part: string): boolean => values.only === undefined || values.only === part;
const root = resolve(import.meta.dirname, "..");
const bin = join(root, "bin/vmsan");
const prepared = process.env["VMSAN_DIR"] ?? join(root, ".cache/vmsan");
const dir = mkdtempSync(join(tmpdir(), "vmsan-bench-snapshot-"));
const env = { ...process.env, VMSAN_DIR: dir };

/** The middle value. */
function median(numbers: number[]): number {
  return numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? Number.NaN;
}

/** Print one figure. */
function report(what: string, figures: Record<string, number>): void {
  const rounded = Object.fromEntries(
    Object.entries(figures).map(([name, value]) => [name, Number(value.toFixed(2))]),
  );
  console.log(JSON.stringify({ bench: "snapshot", what, rounds, ...rounded, load: loadavg()[0] }));
}

/** Run the command line; what it prints, and its wall time in milliseconds. */
function call(args: string[]): { out: string; ms: number } {
  const from = performance.now();
  const { status, stdout, stderr } = spawnSync(bin, args, { env, encoding: "utf8" });
  if (status !== 0) throw new Error(`${args.join(" ")}: ${stderr}`);
  return { out: stdout.trim(), ms: performance.now() - from };
}

/** Processor time in milliseconds that the processes of the directory have used so far. */
function cpuOfDirectory(): number {
  let ms = 0;
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      if (!readFileSync(`/proc/${pid}/environ`, "utf8").includes(`VMSAN_DIR=${dir}`)) continue;
      const text = readFileSync(`/proc/${pid}/stat`, "utf8");
      const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
      // Of itself and of the children that it has waited for: VMMs that have ended.
      for (const at of [11, 12, 13, 14]) ms += Number(fields[at]) * 10;
    } catch {
      // ENOENT, ESRCH: it ended while we looked.
    }
  }
  return ms;
}

/** Memory of a VM's process that is its own share, in MiB. */
function pssMib(pid: number): number {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
  return Number(/^Pss:\s*(\d+)/m.exec(text)?.[1]) / 1024;
}

/** Wait until a template has been made. */
async function template(): Promise<void> {
  for (let waited = 0; waited < 600; waited += 1) {
    try {
      if (readdirSync(join(dir, "templates")).some((name) => /^[0-9a-f]{32}$/.test(name))) return;
    } catch {
      // ENOENT: none has been begun.
    }
    await sleep(1000);
  }
  throw new Error("no template was made");
}

/** Cold and warm `run base -- true`, taking turns. */
async function starts(): Promise<void> {
  const run = ["run", "base", "--", "true"];
  call(run);
  await template();
  const seen: Record<string, { ms: number[]; cpu: number[] }> = {
    cold: { ms: [], cpu: [] },
    warm: { ms: [], cpu: [] },
  };
  for (let round = 0; round < rounds; round += 1) {
    for (const [name, flags] of [
      ["cold", ["--no-warm"]],
      ["warm", []],
    ] as const) {
      const before = cpuOfDirectory() + ownChildren();
      const { ms } = call(["run", ...flags, ...run.slice(1)]);
      seen[name]?.ms.push(ms);
      seen[name]?.cpu.push(cpuOfDirectory() + ownChildren() - before);
    }
  }
  const [cold, warm] = [seen["cold"], seen["warm"]];
  const of = (side: typeof cold, key: "ms" | "cpu"): number => median(side?.[key] ?? []);
  for (const key of ["ms", "cpu"] as const) {
    const figures = { cold: of(cold, key), warm: of(warm, key) };
    report(`run base, ${key}`, { ...figures, ratio: figures.warm / figures.cold });
  }
}

/** Processor time of the commands that this process has run, in milliseconds. */
function ownChildren(): number {
  const text = readFileSync("/proc/self/stat", "utf8");
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[13]) + Number(fields[14])) * 10;
}

/** How long a VM of 512 MiB with 100 MiB of fresh data stands still, against a copy of the data. */
function pauses(id: string): void {
  const script = "head -c 104857600 /dev/urandom >/dev/shm/fresh";
  call(["exec", id, "-u", "root", "--", "sh", "-c", script]);
  const [pause, copy]: number[][] = [[], []];
  const data = join(dir, "plain");
  spawnSync("dd", ["if=/dev/urandom", `of=${data}`, "bs=1M", "count=100"], { stdio: "ignore" });
  for (let round = 0; round < rounds; round += 1) {
    const { out } = call(["snapshot", "create", id, "--json"]);
    const { snapshotId, pauseMs } = JSON.parse(out) as { snapshotId: string; pauseMs: number };
    pause?.push(pauseMs);
    call(["snapshot", "rm", snapshotId]);
    const from = performance.now();
    spawnSync("cp", [data, `${data}.copy`]);
    copy?.push(performance.now() - from);
  }
  const figures = { pause: median(pause ?? []), copy: median(copy ?? []) };
  report("pause of 100 MiB of fresh data, ms", { ...figures, ratio: figures.pause / figures.copy });
}

/** A clone's first reply, against QEMU alone; the snapshot is of a VM without a card. */
async function firstReply(): Promise<void> {
  const { out: id } = call(["create", "--memory", "256", "--network", "none", "--no-warm"]);
  const made = call(["snapshot", "create", id, "--json"]);
  const { snapshotId } = JSON.parse(made.out) as { snapshotId: string };
  const vmsan = new Vmsan({ dir });
  const seen: Record<"clone" | "load" | "qemu" | "loaded", number[]> = {
    clone: [],
    load: [],
    qemu: [],
    loaded: [],
  };
  for (let round = 0; round < rounds; round += 1) {
    const bare = await bareRestore(join(dir, "snapshots", snapshotId));
    seen.qemu.push(bare.answered);
    seen.loaded.push(bare.loaded);
    const from = performance.now();
    const vm = await vmsan.create({ snapshot: snapshotId });
    seen.clone.push(performance.now() - from);
    seen.load.push(vm.view.timings["load"] ?? Number.NaN);
    await vm.remove();
  }
  const [clone, qemu] = [median(seen.clone), median(seen.qemu)];
  const loads = { load: median(seen.load), qemuLoad: median(seen.loaded) };
  report("clone to first reply, ms", { clone, qemu, ratio: clone / qemu, ...loads });
  call(["rm", "-f", id]);
}

/** Many clones at once, and the memory that an idle one takes. */
async function clones(id: string): Promise<void> {
  const count = Number(values.clones);
  call(["snapshot", "create", id, "--name", "many"]);
  const { ms, out } = call(["create", "--snapshot", "many", "-n", String(count), "--json"]);
  const { vms } = JSON.parse(out) as { vms: { vmId: string; pid: number }[] };
  await sleep(2000);
  report(`${count} clones at once`, { ms, pssMib: median(vms.map(({ pid }) => pssMib(pid))) });
  call(["rm", "-f", ...vms.map(({ vmId }) => vmId)]);
}

try {
  for (const name of ["kernels", "runtimes", "initramfs", "probes", "images", "rootfs"]) {
    mkdirSync(join(prepared, name), { recursive: true });
    symlinkSync(join(prepared, name), join(dir, name));
  }
  if (wants("starts")) await starts();
  if (wants("reply")) await firstReply();
  if (wants("pauses") || wants("clones")) {
    const { out: id } = call(["create", "--memory", "512", "--no-warm"]);
    if (wants("pauses")) pauses(id);
    if (wants("clones")) await clones(id);
    call(["rm", "-f", id]);
  }
} finally {
  spawn(bin, ["daemon", "stop"], { env, stdio: "ignore" }).on("close", () => {
    rmSync(dir, { recursive: true, force: true });
  });
}
