/**
 * bench/floor: a cold `vmsan run base -- true` against QEMU alone with the same kernel and disks and an
 * init that prints one line; and VMs made at once against the same number made one after the other.
 *
 *     node bench/floor.ts [--rounds N] [--many N] [--only boot|many]
 *
 * Prints a JSON line a figure, medians of rounds by turns, processor time beside wall time. That of
 * vmsan is of the command, its daemon and the VMM; `daemonMs` is the daemon's own part.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { ensureKernel } from "../src/boot/kernel.ts";
import type { VmRecord } from "../src/model/vm.ts";
import { bareBoot, floorInitramfs } from "./lib/bare-boot.ts";
import { bench } from "./lib/bench.ts";
import { endDirectory, ownDirectory, pssMib, type Directory } from "./lib/directory.ts";
import { daemonOf } from "./lib/home.ts";
import { median, processCpu, report } from "./lib/measure.ts";

const MEMORY_MIB = 256;

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "5" },
    many: { type: "string", default: "10" },
    only: { type: "string" },
  },
});
const rounds = Number(values.rounds);
/** Whether a part is to be run. */
const wants = (part: string): boolean => values.only === undefined || values.only === part;

/** What is recorded of a VM. */
function recordOf(own: Directory, id: string): VmRecord {
  return JSON.parse(readFileSync(join(own.dir, "vms", id, "vm.json"), "utf8")) as VmRecord;
}

/** Cold runs against QEMU alone, taking turns. */
async function boots(own: Directory, scratch: string): Promise<void> {
  const memory = ["--memory", String(MEMORY_MIB)];
  const run = ["run", ...memory, "--no-warm", "base", "--", "true"];
  const { out: id } = own.call("create", ...memory, "--no-warm");
  const base = recordOf(own, id).spec.disks.find(({ role }) => role === "base")?.path ?? "";
  own.call("rm", "-f", id);
  const kernel = await ensureKernel({ dir: join(own.dir, "kernels") });
  const given = { kernel, initramfs: floorInitramfs(scratch), base, memMib: MEMORY_MIB };
  const daemon = daemonOf({ ...own.env, VMSAN_DIR: own.dir });
  const seen: Record<"ms" | "cpu" | "bareMs" | "bareCpu" | "outside", number[]> = {
    ms: [],
    cpu: [],
    bareMs: [],
    bareCpu: [],
    outside: [],
  };
  for (let round = 0; round < rounds; round += 1) {
    const bare = await bareBoot(join(scratch, `bare-${round}`), given);
    seen.bareMs.push(bare.ms);
    seen.bareCpu.push(bare.cpuMs);
    const before = processCpu(daemon);
    const { ms, cpuMs } = own.measured(...run);
    seen.ms.push(ms);
    seen.cpu.push(cpuMs);
    seen.outside.push(processCpu(daemon) - before);
  }
  const figures = { runMs: median(seen.ms), bareMs: median(seen.bareMs) };
  const cpu = { runMs: median(seen.cpu), bareMs: median(seen.bareCpu) };
  const what = "cold run base -- true to bare QEMU";
  report({ bench: "floor", what, rounds, ...figures, ratio: figures.runMs / figures.bareMs });
  report({
    bench: "floor",
    what: `${what}, processor time`,
    rounds,
    ...cpu,
    ratio: cpu.runMs / cpu.bareMs,
    daemonMs: median(seen.outside),
  });
}

/** Many VMs at once against the same number one after the other. */
async function many(own: Directory): Promise<void> {
  const count = Number(values.many);
  const create = ["create", "--memory", String(MEMORY_MIB), "--no-warm"];
  const singles: { ms: number; cpuMs: number }[] = [];
  for (let index = 0; index < count; index += 1) {
    const { out: id, ...cost } = own.measured(...create);
    singles.push(cost);
    own.call("rm", "-f", id);
  }
  const sum = (of: "ms" | "cpuMs"): number => singles.reduce((total, one) => total + one[of], 0);
  const { outs: ids, ms, cpuMs } = await own.together(count, ...create);
  await sleep(2000);
  const pids = ids.map((id) => recordOf(own, id).process?.pid ?? 0);
  report({
    bench: "floor",
    what: `${count} creates at once to ${count} single ones`,
    ms,
    singleMs: sum("ms"),
    cpuMs,
    singleCpuMs: sum("cpuMs"),
    ratio: cpuMs / sum("cpuMs"),
    pssMib: median(pids.map((pid) => pssMib(pid))),
  });
  own.call("rm", "-f", ...ids);
}

await bench("floor", async ({ dir, defer }) => {
  const own = ownDirectory(join(dir, "home"));
  defer(() => {
    const { vms } = JSON.parse(own.call("list", "--json").out) as { vms: { id: string }[] };
    if (vms.length > 0) own.call("rm", "-f", ...vms.map(({ id }) => id));
    endDirectory(own);
  });
  if (wants("boot")) await boots(own, join(dir, "scratch"));
  if (wants("many")) await many(own);
});
