/**
 * bench/guest: what working inside a guest costs, against OpenSSH into the same guest, each as a
 * process and each with its connection open: a command, a key's echo on a terminal, bytes up and
 * down. By turns; wall time, and beside it the CPU of the client and of the daemon.
 *
 *   node bench/guest.ts                              the fake guest and an sshd, both on this host
 *   node bench/guest.ts --vm ID                      a running VM; with --ssh as well
 *   … --ssh user@host:port --key FILE                an sshd in that guest, over its network
 *
 * An sshd that is not installed is unpacked from Debian's package into a temporary directory; no
 * service is started. Prints JSON lines. Calls within a process (the SDK's) have no counterpart in
 * ssh and no ratio.
 */
import { spawn } from "node:child_process";
import { randomFillSync } from "node:crypto";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { Vmsan } from "../src/client/vmsan.ts";
import { bench, measured } from "./lib/bench.ts";
import type { Bench } from "./lib/bench.ts";
import { vmsan } from "./lib/home.ts";
import { byTurns, costOf, median, processCpu, report } from "./lib/measure.ts";
import type { Cost } from "./lib/measure.ts";
import { clientOf, localSshd, withMaster } from "./lib/sshd.ts";
import type { Ssh } from "./lib/sshd.ts";

const { values: flags } = parseArgs({
  options: {
    vm: { type: "string" },
    ssh: { type: "string" },
    key: { type: "string" },
    rounds: { type: "string", default: "30" },
    mib: { type: "string", default: "256" },
  },
});
const rounds = Number(flags.rounds);
const bytes = Number(flags.mib) << 20;

/** What vmsan's side is measured with. */
interface Side {
  env: NodeJS.ProcessEnv;
  vm: string;
  /** Process ID of the daemon. */
  daemon: number;
}

/** The fake guest behind a daemon in a process of its own. */
async function fakeSide(bench: Bench): Promise<Side> {
  const child = spawn(process.execPath, [join(import.meta.dirname, "lib/fake-daemon.ts")], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const ended = new Promise((done) => child.once("close", done));
  bench.defer(async () => {
    child.stdin.end();
    await ended;
  });
  for await (const dir of createInterface(child.stdout)) {
    return { env: { ...process.env, VMSAN_DIR: dir }, vm: "vm", daemon: child.pid ?? 0 };
  }
  throw new Error("the fake daemon does not start");
}

/** A VM that runs. */
async function realSide(vm: string): Promise<Side> {
  const client = new Vmsan();
  await client.get(vm);
  return { env: process.env, vm, daemon: (await client.daemon.info())?.pid ?? 0 };
}

/** Milliseconds from each of `rounds` keys to its echo from `cat` on a terminal of the guest. */
async function echoTimes(file: string, args: string[], env: NodeJS.ProcessEnv): Promise<number[]> {
  const child = spawn(file, args, { env, stdio: ["pipe", "pipe", "inherit"] });
  measured(child);
  let wanted = "";
  let wake = (): void => undefined;
  child.stdout.on("data", (chunk: Buffer) => {
    if (chunk.includes(wanted)) wake();
  });
  const ended = new Promise((done) => child.once("close", done));
  const type = async (key: string): Promise<number> => {
    const start = performance.now();
    await new Promise<void>((done) => {
      wanted = key;
      wake = done;
      child.stdin.write(key);
    });
    return performance.now() - start;
  };
  try {
    await type("warm");
    const times: number[] = [];
    for (let i = 0; i < rounds; i += 1) times.push(await type(String.fromCharCode(97 + (i % 26))));
    return times;
  } finally {
    child.stdin.end("\n\u0004");
    await ended;
  }
}

/** Compare processes by turns; ratios are of the first to each of the others. */
async function compare(
  what: string,
  side: Side,
  commands: Record<string, [string, ...string[]]>,
  times = rounds,
): Promise<void> {
  const turns: Record<string, () => Promise<Cost>> = {};
  for (const [name, command] of Object.entries(commands)) {
    const ours = command[0] === vmsan;
    turns[name] = () =>
      costOf(command, { env: side.env, ...(ours ? { daemon: side.daemon } : {}) });
  }
  const costs = await byTurns(times, turns);
  const first = Object.values(costs)[0]?.wallMs ?? Number.NaN;
  for (const [name, cost] of Object.entries(costs)) {
    report({
      bench: "guest",
      what,
      with: name,
      rounds: times,
      ...cost,
      ratio: first / cost.wallMs,
    });
  }
}

await bench("guest", async (own) => {
  const { dir } = own;
  const side = flags.vm === undefined ? await fakeSide(own) : await realSide(flags.vm);
  const { env, vm } = side;
  let ssh: Ssh | undefined;
  if (flags.ssh !== undefined) ssh = clientOf(flags.ssh, flags.key, dir);
  else if (flags.vm === undefined) ssh = await localSshd(own);
  const master = ssh === undefined ? undefined : await withMaster(ssh, own);
  const bySsh = (...words: string[]): Record<string, [string, ...string[]]> =>
    master === undefined
      ? {}
      : { "ssh, open master": ["ssh", ...master.options, master.target, ...words] };

  await compare("a command", side, {
    "vmsan exec": [vmsan, "exec", vm, "true"],
    ...bySsh("true"),
    ...(ssh === undefined
      ? {}
      : { "ssh, new connection": ["ssh", ...ssh.options, ssh.target, "true"] }),
  });
  // What ssh runs, it runs in the user's shell.
  await compare("a command in a shell", side, {
    "vmsan exec": [vmsan, "exec", vm, "sh", "-c", "true"],
    ...bySsh("true"),
  });
  const inProcess = await new Vmsan({ dir: env["VMSAN_DIR"] ?? "" }).get(vm);
  const calls: number[] = [];
  const before = [process.cpuUsage(), processCpu(side.daemon)] as const;
  for (let i = 0; i < rounds; i += 1) {
    const start = performance.now();
    await inProcess.exec(["true"]);
    calls.push(performance.now() - start);
  }
  const used = process.cpuUsage(before[0]);
  report({
    bench: "guest",
    what: "a command, by a call of the SDK",
    with: "no process of its own, no counterpart",
    rounds,
    wallMs: median(calls),
    cpuMs: (used.user + used.system) / 1000 / rounds,
    daemonCpuMs: (processCpu(side.daemon) - before[1]) / rounds,
  });

  const echoes: Record<string, [string, string[]]> = {
    "vmsan exec -t": [vmsan, ["exec", "-t", vm, "cat"]],
    ...(master === undefined
      ? {}
      : { "ssh -tt, open master": ["ssh", [...master.options, "-tt", master.target, "cat"]] }),
  };
  for (const [name, [file, args]] of Object.entries(echoes)) {
    const wallMs = median(await echoTimes(file, args, env));
    report({ bench: "guest", what: "terminal echo", with: name, rounds, wallMs });
  }

  const big = join(dir, "big");
  writeFileSync(big, randomFillSync(Buffer.alloc(bytes)));
  const remote = flags.vm === undefined ? join(dir, "remote") : "/tmp/vmsan-bench";
  const back = join(dir, "back");
  const scp = (from: string, to: string): Record<string, [string, ...string[]]> =>
    master === undefined ? {} : { scp: ["scp", "-q", ...master.options, from, to] };
  await compare(
    `${flags.mib} MiB up`,
    side,
    {
      "vmsan upload": [vmsan, "upload", vm, big, remote],
      ...scp(big, `${master?.target}:${remote}.scp`),
    },
    3,
  );
  await compare(
    `${flags.mib} MiB down`,
    side,
    {
      "vmsan download": [vmsan, "download", vm, remote, back],
      ...scp(`${master?.target}:${remote}.scp`, `${back}.scp`),
    },
    3,
  );
  if (!existsSync(back)) throw new Error("nothing came down");
});
