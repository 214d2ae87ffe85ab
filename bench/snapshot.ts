/**
 * bench/snapshot: warm starts against cold ones, clones against what QEMU itself needs, and how long a
 * VM stands still, taking turns in one run.
 *
 *     node bench/snapshot.ts [--rounds N] [--clones N] [--only starts|reply|pauses|clones]
 *
 * Prints a JSON line a figure: medians of both sides and their ratio. Processor time is user and system time of
 * the command, its daemon and the VMMs, read from /proc and from the command's own usage.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { Vmsan } from "../src/client/vmsan.ts";
import { bareRestore } from "./lib/bare-restore.ts";
import {
  awaitTemplate,
  cpuOfDirectory,
  endDirectory,
  ownDirectory,
  pssMib,
} from "./lib/directory.ts";
import { childrenCpu, median, report as reportLine } from "./lib/measure.ts";

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
const own = ownDirectory(mkdtempSync(join(tmpdir(), "vmsan-bench-snapshot-")));
const { dir } = own;

/** For what a daemon does behind its answer, in milliseconds. */
const BEHIND_MS = 3000;

/** Print one figure. */
function report(what: string, figures: Record<string, number>): void {
  reportLine({ bench: "snapshot", what, rounds, ...figures });
}

/**
 * Cold and warm `run base -- true`, and those by a clone that has waited, taking turns. The processor time of the last
 * holds the making of the next clone, which goes on behind the command's end.
 */
async function starts(): Promise<void> {
  const run = ["run", "base", "--", "true"];
  own.call(...run);
  await awaitTemplate(own);
  process.env["VMSAN_READY_CLONES"] = "1";
  const waiting = ownDirectory(mkdtempSync(join(tmpdir(), "vmsan-bench-ready-")));
  try {
    waiting.call(...run);
    await awaitTemplate(waiting);
    waiting.call(...run);
    await sleep(BEHIND_MS);
    const sides = [
      { name: "cold", directory: own, flags: ["--no-warm"] },
      { name: "warm", directory: own, flags: [] },
      { name: "ready", directory: waiting, flags: [] },
    ].map((side) => ({ ...side, ms: [] as number[], cpu: [] as number[] }));
    for (let round = 0; round < rounds; round += 1) {
      for (const { directory, flags, ms, cpu } of sides) {
        const before = cpuOfDirectory(directory.dir) + childrenCpu();
        ms.push(directory.call("run", ...flags, ...run.slice(1)).ms);
        await sleep(BEHIND_MS);
        cpu.push(cpuOfDirectory(directory.dir) + childrenCpu() - before);
      }
    }
    for (const key of ["ms", "cpu"] as const) {
      const [cold = 0, warm = 0, ready = 0] = sides.map((side) => median(side[key]));
      const ratios = { ratio: warm / cold, readyRatio: ready / cold };
      report(`run base, ${key}`, { cold, warm, ready, ...ratios });
    }
  } finally {
    endDirectory(waiting);
    rmSync(waiting.dir, { recursive: true, force: true });
  }
}

/** How long a VM of 512 MiB with 100 MiB of fresh data stands still, against a copy of the data. */
function pauses(id: string): void {
  const script = "head -c 104857600 /dev/urandom >/dev/shm/fresh";
  own.call("exec", id, "-u", "root", "--", "sh", "-c", script);
  const [pause, copy]: number[][] = [[], []];
  const data = join(dir, "plain");
  spawnSync("dd", ["if=/dev/urandom", `of=${data}`, "bs=1M", "count=100"], { stdio: "ignore" });
  for (let round = 0; round < rounds; round += 1) {
    const { out } = own.call("snapshot", "create", id, "--json");
    const { snapshotId, pauseMs } = JSON.parse(out) as { snapshotId: string; pauseMs: number };
    pause?.push(pauseMs);
    own.call("snapshot", "rm", snapshotId);
    const from = performance.now();
    spawnSync("cp", [data, `${data}.copy`]);
    copy?.push(performance.now() - from);
  }
  const figures = { pause: median(pause ?? []), copy: median(copy ?? []) };
  report("pause of 100 MiB of fresh data, ms", { ...figures, ratio: figures.pause / figures.copy });
}

/** A clone's first reply, against QEMU alone; the snapshot is of a VM without a card. */
async function firstReply(): Promise<void> {
  const { out: id } = own.call("create", "--memory", "256", "--network", "none", "--no-warm");
  const made = own.call("snapshot", "create", id, "--json");
  const { snapshotId } = JSON.parse(made.out) as { snapshotId: string };
  const vmsan = new Vmsan({ dir });
  const seen: Record<"clone" | "cloneCpu" | "load" | "qemu" | "qemuCpu" | "loaded", number[]> = {
    clone: [],
    cloneCpu: [],
    load: [],
    qemu: [],
    qemuCpu: [],
    loaded: [],
  };
  for (let round = 0; round < rounds; round += 1) {
    const bare = await bareRestore(join(dir, "snapshots", snapshotId));
    seen.qemu.push(bare.answered);
    seen.loaded.push(bare.loaded);
    seen.qemuCpu.push(bare.cpuMs);
    const before = cpuOfDirectory(dir);
    const from = performance.now();
    const vm = await vmsan.create({ snapshot: snapshotId });
    seen.clone.push(performance.now() - from);
    seen.cloneCpu.push(cpuOfDirectory(dir) - before);
    seen.load.push(vm.view.timings["load"] ?? Number.NaN);
    await vm.remove();
  }
  const [clone, qemu] = [median(seen.clone), median(seen.qemu)];
  const loads = { load: median(seen.load), qemuLoad: median(seen.loaded) };
  report("clone to first reply, ms", { clone, qemu, ratio: clone / qemu, ...loads });
  const cpu = { clone: median(seen.cloneCpu), qemu: median(seen.qemuCpu) };
  report("clone to first reply, processor ms", { ...cpu, ratio: cpu.clone / cpu.qemu });
  own.call("rm", "-f", id);
}

/** Many clones at once, and the memory that an idle one takes. */
async function clones(id: string): Promise<void> {
  const count = Number(values.clones);
  own.call("snapshot", "create", id, "--name", "many");
  const create = ["create", "--snapshot", "many", "-n", String(count), "--json"];
  const { ms, out, cpuMs } = own.measured(...create);
  const { vms } = JSON.parse(out) as { vms: { vmId: string; pid: number }[] };
  await sleep(2000);
  report(`${count} clones at once`, {
    ms,
    cpuMs,
    pssMib: median(vms.map(({ pid }) => pssMib(pid))),
  });
  own.call("rm", "-f", ...vms.map(({ vmId }) => vmId));
}

try {
  if (wants("starts")) await starts();
  if (wants("reply")) await firstReply();
  if (wants("pauses") || wants("clones")) {
    const { out: id } = own.call("create", "--memory", "512", "--no-warm");
    if (wants("pauses")) pauses(id);
    if (wants("clones")) await clones(id);
    own.call("rm", "-f", id);
  }
} finally {
  endDirectory(own);
  rmSync(dir, { recursive: true, force: true });
}
