/**
 * What a gateway costs: E2B's SDK through it against vmsan's own SDK on the daemon, in the same run and by turns.
 *
 *   node bench/serve.ts guest [--rounds N] [--mib N]     in VMs: create to the first command's end; an upload of N MiB
 *   node bench/serve.ts fake [--sandboxes N] [--streams N] [--calls N]
 *                              N sandboxes at once without VMs: unary calls, commands, idle streams, events, leaks
 *
 * In the VMSAN_DIR that is set (guest), or in one of its own (fake); with the runtime `e2b` made. Prints JSON lines: times, CPU
 * of this process and of gateway and daemon together, ratios. Two rounds more than asked for fill caches first.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  mkdirSync,
  readFileSync,
  readdirSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { Sandbox } from "e2b";
import { Vmsan } from "../src/client/vmsan.ts";
import { Keys } from "../src/gateway/access/keys.ts";
import { layoutOf, vmsanDir } from "../src/util/paths.ts";
import { bench, measured } from "./lib/bench.ts";
import type { Bench } from "./lib/bench.ts";
import { daemonOf, ownHome, vmsan as program } from "./lib/home.ts";
import { byTurns, median, processCpu, report } from "./lib/measure.ts";
import type { Cost } from "./lib/measure.ts";

const { values, positionals } = parseArgs({
  options: {
    rounds: { type: "string", default: "5" },
    mib: { type: "string", default: "100" },
    sandboxes: { type: "string", default: "50" },
    streams: { type: "string", default: "1000" },
    calls: { type: "string", default: "1000" },
  },
  allowPositionals: true,
});

/** Whose VMs those of this measurement are. */
const PROJECT = `bench-${process.pid}`;
/** The same on VMs that are made without a key. */
const MARK = "bench";

/** A gateway as a process of its own, and a key of it. */
interface Served {
  pid: number;
  connection: { apiKey: string; apiUrl: string; sandboxUrl: string };
  /** CPU that gateway and daemon have used so far, in milliseconds. */
  cpu: () => number;
}

/** Start a gateway of a VMSAN_DIR; it ends with the measurement. */
async function serve({ defer }: Bench, dir: string, driver: string): Promise<Served> {
  const words = ["serve", "--json", "--listen", "127.0.0.1:0", "--driver", driver];
  const env = { ...process.env, VMSAN_DIR: dir };
  const child = spawn(program, words, { env, stdio: ["ignore", "pipe", "inherit"] });
  measured(child);
  const [line] = (await once(child.stdout.setEncoding("utf8"), "data")) as [string];
  const { url } = JSON.parse(line) as { url: string };
  const keys = new Keys(layoutOf(dir).gateway);
  const { key, text } = await keys.create({ project: PROJECT });
  defer(async () => void (await keys.remove(key.id)));
  const connection = { apiKey: `e2b_${text}`, apiUrl: url, sandboxUrl: url };
  const pid = child.pid ?? 0;
  const daemon = daemonOf(env);
  return { pid, connection, cpu: () => processCpu(pid) + processCpu(daemon) };
}

/** What a piece of work takes. */
async function timed({ cpu }: Served, work: () => Promise<unknown>): Promise<Cost> {
  const before = { own: process.cpuUsage(), theirs: cpu() };
  const start = performance.now();
  await work();
  const wallMs = performance.now() - start;
  const own = process.cpuUsage(before.own);
  return { wallMs, cpuMs: (own.user + own.system) / 1000, daemonCpuMs: cpu() - before.theirs };
}

async function guest(made: Bench): Promise<void> {
  const dir = vmsanDir();
  const served = await serve(made, dir, "auto");
  const { connection } = served;
  const vmsan = new Vmsan({ dir });
  // By the daemon: the gateway may be gone by then.
  made.defer(async () => {
    for (const { id, project, labels } of await vmsan.list())
      if (project === PROJECT || labels[MARK] === PROJECT) await (await vmsan.get(id)).remove();
  });
  const rounds = Number(values.rounds);
  const { own, e2b } = await byTurns(rounds, {
    own: async () => {
      let vm: Awaited<ReturnType<typeof vmsan.create>> | undefined;
      const cost = await timed(served, async () => {
        const labels = { [MARK]: PROJECT };
        vm = await vmsan.create({ runtime: "e2b", vcpus: 1, memory: "512m", labels });
        await vm.exec(["/bin/bash", "-l", "-c", "echo first"]);
      });
      await vm?.remove();
      return cost;
    },
    e2b: async () => {
      let sandbox: Sandbox | undefined;
      const cost = await timed(served, async () => {
        sandbox = await Sandbox.create("base", connection);
        await sandbox.commands.run("echo first");
      });
      await sandbox?.kill();
      return cost;
    },
  });
  const moreMs = e2b.wallMs - own.wallMs;
  report({ what: "create to the first command's end", rounds, own, e2b, moreMs });

  const sandbox = await Sandbox.create("base", { ...connection, timeoutMs: 3_600_000 });
  const mib = Number(values.mib);
  const data = Buffer.alloc(mib << 20);
  for (let i = 0; i < data.length; i += 8) data.writeDoubleLE(Math.random(), i);
  const file = join(made.dir, "data");
  writeFileSync(file, data);
  const vm = await vmsan.get(sandbox.sandboxId);
  const uploads = await byTurns(rounds, {
    own: async () => await timed(served, async () => await vm.upload([file], "/home/user/own")),
    e2b: async () =>
      await timed(served, async () => {
        await sandbox.files.write("e2b", new Blob([data]), { requestTimeoutMs: 0 });
      }),
  });
  const speed = ({ wallMs }: Cost): number => mib / (wallMs / 1000);
  report({
    what: `upload of ${mib} MiB`,
    rounds,
    ...uploads,
    ownMiBs: speed(uploads.own),
    e2bMiBs: speed(uploads.e2b),
    share: speed(uploads.e2b) / speed(uploads.own),
  });
}

/** Commands of the processes that stand for guests: without what this host's login shells do first. */
const AS_ROOT = { user: "root" as const, cwd: "/", envs: { HOME: "/nonexistent" } };

/** Resident memory of a process, in MiB, and how many descriptors it has. */
function sizeOf(pid: number): { mib: number; descriptors: number } {
  const kib = /^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
  return { mib: Number(kib) / 1024, descriptors: readdirSync(`/proc/${pid}/fd`).length };
}

/** What the agents of all VMs take, which stand for guests: memory that is theirs alone, in MiB, and threads. */
async function agentsOf(vmsan: Vmsan): Promise<{ agents: number; mib: number; threads: number }> {
  const sum = { agents: 0, mib: 0, threads: 0 };
  for (const { pid } of await vmsan.list()) {
    if (pid === undefined) continue;
    const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
    sum.agents += 1;
    sum.mib += Number(/^Pss:\s+(\d+)/m.exec(rollup)?.[1]) / 1024;
    sum.threads += readdirSync(`/proc/${pid}/task`).length;
  }
  return sum;
}

/** Do something with each of a list, so many at once. */
async function each<T>(
  list: readonly T[],
  atOnce: number,
  work: (one: T) => Promise<void>,
): Promise<void> {
  const left = list.entries();
  const worker = async (): Promise<void> => {
    for (const [, one] of left) await work(one);
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
}

/** What has been told of VMs: how often of each type, until told to stop. */
function counted(vmsan: Vmsan): { counts: Map<string, number>; stop: () => Promise<void> } {
  const counts = new Map<string, number>();
  const ending = new AbortController();
  const reading = (async () => {
    for await (const { type } of vmsan.events({ since: 0, signal: ending.signal }))
      counts.set(type, (counts.get(type) ?? 0) + 1);
  })();
  return {
    counts,
    stop: async () => {
      ending.abort();
      await reading;
    },
  };
}

async function fake(made: Bench): Promise<void> {
  // The SDK's own limit is 200; it reads this at its first stream.
  process.env["E2B_ENVD_RPC_CONNECTIONS"] = String(Number(values.streams) + 200);
  const { VMSAN_DIR: dir } = ownHome(made);
  mkdirSync(dir);
  // What guests would boot is shared, though none does: the template has to be known.
  for (const name of ["kernels", "initramfs", "probes", "runtimes", "rootfs", "images"])
    symlinkSync(join(vmsanDir(), name), join(dir, name));
  const served = await serve(made, dir, "fake");
  const { pid, connection } = served;
  const vmsan = new Vmsan({ dir });
  const events = counted(vmsan);
  made.defer(events.stop);
  const count = Number(values.sandboxes);
  const sandboxes: Sandbox[] = [];
  const makings: number[] = [];
  const creation = await timed(served, async () => {
    await each(Array.from({ length: count }), 50, async () => {
      const options = { ...connection, secure: true, requestTimeoutMs: 0, timeoutMs: 3_600_000 };
      const start = performance.now();
      sandboxes.push(await Sandbox.create("base", options));
      makings.push(performance.now() - start);
    });
  });
  const slowestMs = Math.max(...makings);
  report({ what: "sandboxes made, 50 at once", count, slowestMs, ...creation });

  // Unary calls one after another, while all the sandboxes are there.
  const took: number[] = [];
  const calls = Number(values.calls);
  const unary = await timed(served, async () => {
    for (let i = 0; i < calls; i += 1) {
      const start = performance.now();
      await sandboxes[i % count]?.files.exists("/", { user: "root" });
      took.push(performance.now() - start);
    }
  });
  const sorted = took.toSorted((a, b) => a - b);
  const p99Ms = sorted[Math.floor(calls * 0.99) - 1];
  report({
    what: "a unary call",
    calls,
    p50Ms: median(took),
    p99Ms,
    mostMs: sorted.at(-1),
    cpuMs: unary.cpuMs / calls,
    gatewayAndDaemonCpuMs: (unary.daemonCpuMs ?? 0) / calls,
  });

  // Everybody runs a command of their own: no line may be lost.
  let lost = 0;
  const commands = await timed(served, async () => {
    await each(sandboxes, 50, async (sandbox) => {
      const { stdout } = await sandbox.commands.run("seq 1 200", AS_ROOT);
      if (stdout.split("\n").length !== 201) lost += 1;
    });
  });
  report({ what: "commands, 50 at once", count, lost, ...commands });

  report({ what: "agents in place of guests", ...(await agentsOf(vmsan)) });

  const before = sizeOf(pid);
  const streams = Number(values.streams);
  await each([...Array.from({ length: streams }).keys()], 50, async (i) => {
    const options = { ...AS_ROOT, background: true as const, timeoutMs: 0 };
    await sandboxes[i % count]?.commands.run("sleep 30000", options);
  });
  await sleep(3000);
  const cpuBefore = processCpu(pid);
  await sleep(5000);
  const idleCpuMs = (processCpu(pid) - cpuBefore) / 5;
  report({
    what: "idle streams",
    streams,
    moreMib: sizeOf(pid).mib - before.mib,
    gatewayCpuMsASecond: idleCpuMs,
  });

  await each(sandboxes, 50, async (sandbox) => void (await sandbox.kill()));
  // The last frames of streams whose sandbox is gone.
  await sleep(3000);
  const { mib, descriptors } = sizeOf(pid);
  const left = (await vmsan.list()).length;
  const directories = readdirSync(join(dir, "vms")).filter((name) =>
    statSync(join(dir, "vms", name)).isDirectory(),
  );
  report({
    what: "afterwards",
    vms: left,
    directories: directories.length,
    gatewayMib: mib,
    descriptors,
    descriptorsBefore: before.descriptors,
  });
  const { counts } = events;
  report({
    what: "events of VMs",
    expected: count,
    created: counts.get("vm.created") ?? 0,
    started: counts.get("vm.started") ?? 0,
    removed: counts.get("vm.removed") ?? 0,
    missed: counts.get("missed") ?? 0,
  });
}

await bench("serve", positionals[0] === "fake" ? fake : guest);
