/**
 * What a gateway costs: E2B's SDK through it against vmsan's own SDK on the daemon, in the same run and by turns.
 *
 * node bench/serve.ts guest [--rounds N]     create to the first command's end; upload of 100 MB
 * node bench/serve.ts fake [--sandboxes N]   N sandboxes at once without VMs: unary calls, idle streams, leaks
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Sandbox } from "e2b";
import { Vmsan } from "../src/client/vmsan.ts";
import { Keys } from "../src/gateway/access/keys.ts";
import { layoutOf, vmsanDir } from "../src/util/paths.ts";
import { bench, measured } from "./lib/bench.ts";
import type { Bench } from "./lib/bench.ts";
import { ownHome, vmsan as program } from "./lib/home.ts";
import { byTurns, median, report } from "./lib/measure.ts";
import type { Cost } from "./lib/measure.ts";

const { values, positionals } = parseArgs({
  options: {
    rounds: { type: "string", default: "5" },
    sandboxes: { type: "string", default: "50" },
    streams: { type: "string", default: "1000" },
  },
  allowPositionals: true,
});

/** A gateway as a process of its own, and a key of it. */
interface Served {
  pid: number;
  connection: { apiKey: string; apiUrl: string; sandboxUrl: string };
}

/** Start a gateway of a VMSAN_DIR; it ends with the measurement. */
async function serve({ defer }: Bench, dir: string, driver: string): Promise<Served> {
  const words = ["serve", "--json", "--listen", "127.0.0.1:0", "--driver", driver];
  const child = spawn(program, words, {
    env: { ...process.env, VMSAN_DIR: dir },
    stdio: ["ignore", "pipe", "inherit"],
  });
  measured(child);
  const [line] = (await once(child.stdout.setEncoding("utf8"), "data")) as [string];
  const { url } = JSON.parse(line) as { url: string };
  const keys = new Keys(layoutOf(dir).gateway);
  const { key, text } = await keys.create({ project: `bench-${process.pid}` });
  defer(async () => void (await keys.remove(key.id)));
  const connection = { apiKey: `e2b_${text}`, apiUrl: url, sandboxUrl: url };
  return { pid: child.pid ?? 0, connection };
}

/** A piece of work's wall time; its CPU is spread over processes and not counted. */
async function timed(work: () => Promise<unknown>): Promise<Cost> {
  const start = performance.now();
  await work();
  return { wallMs: performance.now() - start, cpuMs: 0 };
}

async function guest(made: Bench): Promise<void> {
  const dir = vmsanDir();
  const { connection } = await serve(made, dir, "auto");
  const vmsan = new Vmsan({ dir });
  const started = await byTurns(Number(values.rounds), {
    own: async () => {
      let vm: Awaited<ReturnType<typeof vmsan.create>> | undefined;
      const cost = await timed(async () => {
        vm = await vmsan.create({ runtime: "e2b", vcpus: 1, memory: "512m" });
        await vm.exec(["/bin/bash", "-l", "-c", "echo first"]);
      });
      await vm?.remove();
      return cost;
    },
    e2b: async () => {
      let sandbox: Sandbox | undefined;
      const cost = await timed(async () => {
        sandbox = await Sandbox.create("base", connection);
        await sandbox.commands.run("echo first");
      });
      await sandbox?.kill();
      return cost;
    },
  });
  const { own, e2b } = started;
  report({
    what: "create to the first command's end",
    ownMs: own.wallMs,
    e2bMs: e2b.wallMs,
    moreMs: e2b.wallMs - own.wallMs,
  });

  const sandbox = await Sandbox.create("base", { ...connection, timeoutMs: 3_600_000 });
  made.defer(async () => void (await sandbox.kill()));
  const data = Buffer.alloc(100 << 20);
  for (let i = 0; i < data.length; i += 8) data.writeDoubleLE(Math.random(), i);
  const file = join(made.dir, "100mb");
  writeFileSync(file, data);
  const vm = await vmsan.get(sandbox.sandboxId);
  const uploads = await byTurns(Number(values.rounds), {
    own: async () => await timed(async () => await vm.upload([file], "/home/user/own")),
    e2b: async () =>
      await timed(async () => {
        await sandbox.files.write("e2b", new Blob([data]), { requestTimeoutMs: 0 });
      }),
  });
  const speed = ({ wallMs }: Cost): number => 100 / (wallMs / 1000);
  report({
    what: "upload of 100 MiB",
    ownMiBs: speed(uploads.own),
    e2bMiBs: speed(uploads.e2b),
    share: speed(uploads.e2b) / speed(uploads.own),
  });
}

/** Resident memory of a process, in MiB. */
function residentMib(pid: number): number {
  const kib = /^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
  return Number(kib) / 1024;
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

async function fake(made: Bench): Promise<void> {
  const { VMSAN_DIR: dir } = ownHome(made);
  mkdirSync(dir);
  // What guests would boot is shared, though none does: the template has to be known.
  for (const name of ["kernels", "initramfs", "probes", "runtimes", "rootfs", "images"])
    symlinkSync(join(vmsanDir(), name), join(dir, name));
  const { pid, connection } = await serve(made, dir, "fake");
  const count = Number(values.sandboxes);
  const sandboxes: Sandbox[] = [];
  const started = performance.now();
  await each(Array.from({ length: count }), 50, async () => {
    const options = { ...connection, secure: true, requestTimeoutMs: 0 };
    sandboxes.push(await Sandbox.create("base", options));
  });
  report({ what: "sandboxes made", count, wallMs: performance.now() - started });

  // Unary calls one after another, while all the sandboxes are there.
  const took: number[] = [];
  for (let i = 0; i < 1000; i += 1) {
    const sandbox = sandboxes[i % count];
    const start = performance.now();
    await sandbox?.files.exists("/", { user: "root" });
    took.push(performance.now() - start);
  }
  const sorted = took.toSorted((a, b) => a - b);
  report({ what: "unary call", p50Ms: median(took), p99Ms: sorted[989], mostMs: sorted.at(-1) });

  // Everybody runs a command of their own: no line may be lost.
  let lost = 0;
  await each(sandboxes, 50, async (sandbox) => {
    const { stdout } = await sandbox.commands.run("seq 1 200", { user: "root" });
    if (stdout.split("\n").length !== 201) lost += 1;
  });
  report({ what: "commands at once", count, lost });

  const before = residentMib(pid);
  const streams = Number(values.streams);
  const idle: { kill: () => Promise<boolean> }[] = [];
  await each(Array.from({ length: streams }), 50, async () => {
    const sandbox = sandboxes[idle.length % count];
    const command = await sandbox?.commands.run("sleep 3000", {
      background: true,
      timeoutMs: 0,
      user: "root",
    });
    if (command !== undefined) idle.push(command);
  });
  await new Promise((resolve) => setTimeout(resolve, 3000));
  report({ what: "idle streams", streams, moreMib: residentMib(pid) - before });
  await each(idle, 50, async (command) => void (await command.kill()));

  await each(sandboxes, 50, async (sandbox) => void (await sandbox.kill()));
  await new Promise((resolve) => setTimeout(resolve, 3000));
  const open = readFileSync(`/proc/${pid}/status`, "utf8").match(/^Threads:\s+(\d+)/m)?.[1];
  const left = (await new Vmsan({ dir }).list()).length;
  report({ what: "afterwards", vms: left, residentMib: residentMib(pid), threads: Number(open) });
}

await bench("serve", positionals[0] === "fake" ? fake : guest);
