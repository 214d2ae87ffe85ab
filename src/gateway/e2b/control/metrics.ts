/** What a sandbox uses, read in its guest at the moment it is asked. */
import type { Vm } from "../../../client/vm.ts";

/** How long processor time is watched, in milliseconds. */
const WATCH_MS = 200;

async function textOf(vm: Vm, path: string): Promise<string> {
  const parts: Buffer[] = [];
  await vm.readFile(path, (bytes) => void parts.push(Buffer.from(bytes)), { user: "0" });
  return Buffer.concat(parts).toString("latin1");
}

/** Busy and all time of all processors together, in ticks. */
async function times(vm: Vm): Promise<{ busy: number; all: number }> {
  const line = /^cpu +(.*)$/m.exec(await textOf(vm, "/proc/stat"))?.[1] ?? "";
  const [user = 0, nice = 0, system = 0, idle = 0, wait = 0, ...rest] = line.split(" ").map(Number);
  // Guests' time is in `user` already.
  const other = rest.slice(0, 3).reduce((sum, ticks) => sum + ticks, 0);
  const busy = user + nice + system + other;
  return { busy, all: busy + idle + wait };
}

/** One sample of a running sandbox, in E2B's words; sizes in bytes. */
export async function sample(vm: Vm): Promise<object> {
  const before = await times(vm);
  await new Promise((resolve) => setTimeout(resolve, WATCH_MS));
  const [after, memory, disk] = await Promise.all([
    times(vm),
    textOf(vm, "/proc/meminfo"),
    vm.exec(["stat", "-f", "-c", "%b %f %S", "/"], { user: "0" }),
  ]);
  const kib = (name: string): number =>
    Number(new RegExp(`^${name}: +(\\d+)`, "m").exec(memory)?.[1] ?? 0) * 1024;
  const [blocks = 0, free = 0, size = 0] = disk.stdout.toString().split(" ").map(Number);
  const now = new Date();
  const all = after.all - before.all;
  return {
    timestamp: now.toISOString(),
    timestampUnix: Math.floor(now.getTime() / 1000),
    cpuCount: vm.view.vcpus,
    cpuUsedPct: all > 0 ? Math.round(((after.busy - before.busy) / all) * 10_000) / 100 : 0,
    memUsed: kib("MemTotal") - kib("MemAvailable"),
    memTotal: kib("MemTotal"),
    memCache: kib("Cached"),
    diskUsed: (blocks - free) * size,
    diskTotal: blocks * size,
  };
}
