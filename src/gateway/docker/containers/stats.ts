/** What a container uses, and what runs in it. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Vm } from "../../../client/vm.ts";
import { DockerError } from "../errors.ts";
import { reply } from "../http/route.ts";
import type { Call } from "../http/route.ts";
import { beginStream, push } from "../http/wire.ts";
import type { Container } from "./container.ts";

const SECOND_MS = 1000;

/** A small file of the guest as text. */
async function textOf(vm: Vm, path: string): Promise<string> {
  const parts: Buffer[] = [];
  await vm.readFile(path, (bytes) => void parts.push(Buffer.from(bytes)), { user: "root" });
  return Buffer.concat(parts).toString("utf8");
}

/** Processor time, in nanoseconds. */
interface CpuTimes {
  used: number;
  all: number;
  processors: number;
}

async function cpuTimes(vm: Vm): Promise<CpuTimes> {
  const lines = (await textOf(vm, "/proc/stat")).split("\n");
  const ticks = (lines[0] ?? "").split(/\s+/).slice(1, 9).map(Number);
  const all = ticks.reduce((sum, each) => sum + (each || 0), 0) * 1e7;
  const idle = ((ticks[3] ?? 0) + (ticks[4] ?? 0)) * 1e7;
  return { used: all - idle, all, processors: lines.filter((line) => /^cpu\d/.test(line)).length };
}

function cpuView({ used, all, processors }: CpuTimes): object {
  return {
    cpu_usage: { total_usage: used, usage_in_kernelmode: 0, usage_in_usermode: used },
    system_cpu_usage: all,
    online_cpus: processors,
    throttling_data: { periods: 0, throttled_periods: 0, throttled_time: 0 },
  };
}

interface Sample {
  read: string;
  cpu: CpuTimes;
}

const NOTHING: Sample = { read: "0001-01-01T00:00:00Z", cpu: { used: 0, all: 0, processors: 0 } };

async function sample(vm: Vm): Promise<Sample> {
  return { read: new Date().toISOString(), cpu: await cpuTimes(vm) };
}

async function view(container: Container, vm: Vm, before: Sample, now: Sample): Promise<object> {
  type Stats = { memTotalKib: number; memAvailableKib: number; processes: number };
  const stats = await vm.transport.request<Stats>("GET", "/v1/stats");
  const limit = stats.memTotalKib * 1024;
  return {
    id: container.id,
    name: `/${container.record.name}`,
    read: now.read,
    preread: before.read,
    pids_stats: { current: stats.processes },
    blkio_stats: { io_service_bytes_recursive: null },
    num_procs: 0,
    storage_stats: {},
    cpu_stats: cpuView(now.cpu),
    precpu_stats: cpuView(before.cpu),
    memory_stats: { usage: limit - stats.memAvailableKib * 1024, limit, stats: {} },
    networks: {},
  };
}

/** `GET …/stats`: once, or each second. */
export async function sendStats(call: Call, container: Container): Promise<void> {
  const { response, query } = call;
  const streaming = query.flag("stream", true);
  let vm: Vm;
  try {
    vm = await container.runningGuest();
  } catch {
    // One that does not run uses nothing.
    reply(call, { id: container.id, name: `/${container.record.name}`, read: NOTHING.read });
    return;
  }
  let before = NOTHING;
  if (!streaming && !query.flag("one-shot")) {
    before = await sample(vm);
    await sleep(SECOND_MS);
  }
  if (!streaming) return reply(call, await view(container, vm, before, await sample(vm)));
  beginStream(response, "application/json");
  while (!response.destroyed && container.running) {
    if (container.record.state.status === "running") {
      const now = await sample(vm);
      if (!(await push(response, `${JSON.stringify(await view(container, vm, before, now))}\n`)))
        return;
      before = now;
    }
    await sleep(SECOND_MS);
  }
  response.end();
}

/** `GET …/top`: what the guest's own ps says. @throws 409, 500 where there is none */
export async function top(call: Call, container: Container): Promise<void> {
  const vm = await container.runningGuest();
  const wish = call.query.text("ps_args");
  const args = wish === "" ? [] : wish.split(/\s+/).filter((word) => word !== "");
  const run = async (words: string[]): Promise<{ code: number; out: string; err: string }> => {
    const { exitCode, stdout, stderr } = await vm.exec(["ps", ...words], { user: "root" });
    return { code: exitCode, out: stdout.toString("utf8"), err: stderr.toString("utf8") };
  };
  let done = await run(args.length === 0 ? ["-ef"] : args);
  if (done.code !== 0 && args.length === 0) done = await run([]);
  if (done.code !== 0) throw new DockerError(500, `ps: ${done.err.trim().slice(0, 500)}`);
  const [head = "", ...lines] = done.out.trimEnd().split("\n");
  const titles = head.trim().split(/\s+/);
  const processes = lines.map((line) => {
    const words = line.trim().split(/\s+/);
    return [...words.slice(0, titles.length - 1), words.slice(titles.length - 1).join(" ")];
  });
  reply(call, { Titles: titles, Processes: processes });
}
