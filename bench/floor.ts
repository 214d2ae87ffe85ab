/**
 * bench/floor: a cold `vmsan run base -- true` against QEMU alone with the same kernel and disks and an
 * init that prints one line: one that boots, and one of an image that has no template yet, from a machine that has
 * booted already. And VMs made at once against the same number made one after the other, of both kinds.
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
import {
  awaitTemplate,
  endDirectory,
  ownDirectory,
  pssMib,
  type Directory,
} from "./lib/directory.ts";
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

/** Flags of a start for which there is no template of its image: none has a disk of that size. */
let size = 20;
const unknown = (): string[] => ["--disk", `${(size += 1)}g`];

/** Cold runs against QEMU alone, taking turns. */
async function boots(own: Directory, scratch: string): Promise<void> {
  const memory = ["--memory", String(MEMORY_MIB)];
  const { out: id } = own.call("create", ...memory);
  const base = recordOf(own, id).spec.disks.find(({ role }) => role === "base")?.path ?? "";
  own.call("rm", "-f", id);
  await awaitTemplate(own, "booted-");
  const kernel = await ensureKernel({ dir: join(own.dir, "kernels") });
  const given = { kernel, initramfs: floorInitramfs(scratch), base, memMib: MEMORY_MIB };
  const daemon = daemonOf({ ...own.env, VMSAN_DIR: own.dir });
  const side = (): Record<"ms" | "cpuMs" | "daemonMs", number[]> => ({
    ms: [],
    cpuMs: [],
    daemonMs: [],
  });
  const [bare, boot, booted] = [side(), side(), side()];
  for (let round = 0; round < rounds; round += 1) {
    const alone = await bareBoot(join(scratch, `bare-${round}`), given);
    bare.ms.push(alone.ms);
    bare.cpuMs.push(alone.cpuMs);
    for (const [seen, flags] of [
      [boot, ["--no-warm"]],
      [booted, unknown()],
    ] as const) {
      const before = processCpu(daemon);
      const { ms, cpuMs } = own.measured("run", ...memory, ...flags, "base", "--", "true");
      seen.ms.push(ms);
      seen.cpuMs.push(cpuMs);
      seen.daemonMs.push(processCpu(daemon) - before);
    }
  }
  for (const [what, seen] of [
    ["that boots", boot],
    ["from a booted machine", booted],
  ] as const) {
    const figures = { runMs: median(seen.ms), bareMs: median(bare.ms) };
    const cpu = { runMs: median(seen.cpuMs), bareMs: median(bare.cpuMs) };
    const name = `cold run base -- true ${what} to bare QEMU`;
    report({
      bench: "floor",
      what: name,
      rounds,
      ...figures,
      ratio: figures.runMs / figures.bareMs,
    });
    const ratio = cpu.runMs / cpu.bareMs;
    const daemonMs = median(seen.daemonMs);
    report({ bench: "floor", what: `${name}, processor time`, rounds, ...cpu, ratio, daemonMs });
  }
}

/** Many VMs at once against the same number one after the other. */
async function many(own: Directory): Promise<void> {
  const count = Number(values.many);
  const create = ["create", "--memory", String(MEMORY_MIB)];
  own.call("rm", "-f", own.call(...create).out);
  await awaitTemplate(own, "booted-");
  for (const [what, flags] of [
    ["that boot", () => ["--no-warm"]],
    ["from a booted machine", unknown],
  ] as const) {
    const singles: { ms: number; cpuMs: number }[] = [];
    for (let index = 0; index < count; index += 1) {
      const { out: id, ...cost } = own.measured(...create, ...flags());
      singles.push(cost);
      own.call("rm", "-f", id);
    }
    const sum = (of: "ms" | "cpuMs"): number => singles.reduce((total, one) => total + one[of], 0);
    const { outs: ids, ms, cpuMs } = await own.together(count, ...create, ...flags());
    await sleep(2000);
    const pids = ids.map((id) => recordOf(own, id).process?.pid ?? 0);
    report({
      bench: "floor",
      what: `${count} creates at once ${what} to ${count} single ones`,
      ms,
      singleMs: sum("ms"),
      cpuMs,
      singleCpuMs: sum("cpuMs"),
      ratio: cpuMs / sum("cpuMs"),
      pssMib: median(pids.map((pid) => pssMib(pid))),
    });
    own.call("rm", "-f", ...ids);
  }
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
