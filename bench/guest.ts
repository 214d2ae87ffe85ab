/**
 * bench/guest: what working inside a guest costs, against OpenSSH into the same guest: exec
 * round trip, echo of a terminal, throughput up and down. Medians of interleaved runs.
 *
 *   node bench/guest.ts                              the fake guest and an sshd of this host
 *   node bench/guest.ts --vm ID                      a running VM; with --ssh as well
 *   … --ssh user@host:port --key FILE                an sshd in that guest, over its network
 *
 * Prints a table on stderr and one JSON object on stdout.
 */
import { execFileSync, spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { cpus, loadavg, tmpdir, userInfo } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { download, upload } from "../src/agent/copy.ts";
import { startStream } from "../src/agent/streams.ts";
import type { GuestTransport } from "../src/agent/transport.ts";
import { fakeGuest } from "../test/exec-cases/fake-guest.ts";

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

/** How to reach an sshd. */
interface Ssh {
  options: string[];
  target: string;
  stop: () => void;
}

/** Milliseconds that `body` takes. */
async function time(body: () => Promise<unknown> | void): Promise<number> {
  const start = performance.now();
  await body();
  return performance.now() - start;
}

/** The middle one. */
function median(list: number[]): number {
  return list.toSorted((a, b) => a - b)[Math.floor(list.length / 2)] ?? Number.NaN;
}

/** A port that nobody listens on. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Run a program to its end, without blocking the agent's channel in this process. */
async function runProgram(file: string, args: string[]): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const child = spawn(file, args, { stdio: ["ignore", "ignore", "pipe"] });
    let said = "";
    child.stderr.on("data", (chunk: Buffer) => {
      said = (said + chunk.toString()).slice(-2000);
    });
    child.on("error", reject);
    child.on("close", (code) => {
      if (code === 0) resolve();
      else reject(new Error(`${file} ${args.join(" ")}: ${said}`));
    });
  });
}

/** An sshd of our own on the loopback, with keys of its own. */
async function localSshd(dir: string): Promise<Ssh | undefined> {
  if (!existsSync("/usr/sbin/sshd")) return undefined;
  for (const key of ["host", "user"]) {
    execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", join(dir, key)]);
  }
  const port = await freePort();
  execFileSync("cp", [join(dir, "user.pub"), join(dir, "authorized")]);
  const lines = [
    `Port ${port}`,
    "ListenAddress 127.0.0.1",
    `HostKey ${join(dir, "host")}`,
    `AuthorizedKeysFile ${join(dir, "authorized")}`,
    "StrictModes no",
    "UsePAM no",
    "PermitRootLogin yes",
    `PidFile ${join(dir, "sshd.pid")}`,
    "Subsystem sftp internal-sftp",
  ];
  writeFileSync(join(dir, "sshd_config"), `${lines.join("\n")}\n`);
  if (process.geteuid?.() === 0) mkdirSync("/run/sshd", { recursive: true });
  const child = spawn("/usr/sbin/sshd", ["-D", "-f", join(dir, "sshd_config")], {
    stdio: "ignore",
  });
  const ssh = clientOf(`${userInfo().username}@127.0.0.1:${port}`, join(dir, "user"), dir);
  for (let i = 0; ; i += 1) {
    try {
      await runProgram("ssh", [...ssh.options, ssh.target, "true"]);
      break;
    } catch (error) {
      if (i === 50) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
  return { ...ssh, stop: () => void child.kill() };
}

/** Options of ssh, scp and sftp for a target `user@host:port`. */
function clientOf(target: string, key: string | undefined, dir: string): Ssh {
  const [address = "", port = "22"] = target.split(/:(?=\d+$)/);
  return {
    options: [
      "-o",
      "StrictHostKeyChecking=no",
      "-o",
      `UserKnownHostsFile=${join(dir, "known")}`,
      "-o",
      "BatchMode=yes",
      "-o",
      "LogLevel=ERROR",
      "-o",
      `Port=${port}`,
      ...(key === undefined ? [] : ["-i", key]),
    ],
    target: address,
    stop: () => undefined,
  };
}

/** Median milliseconds from a key to its echo, and how to end the session. */
interface Echo {
  type: (key: string) => Promise<void>;
  end: () => void;
}

/** Wait for each typed character in the output. */
function echoOf(write: (text: string) => void): Echo & { see: (text: string) => void } {
  let wanted = "";
  let wake = (): void => undefined;
  return {
    see: (text) => {
      if (text.includes(wanted)) wake();
    },
    type: async (key) => {
      await new Promise<void>((resolve) => {
        wanted = key;
        wake = resolve;
        write(key);
      });
    },
    end: () => undefined,
  };
}

/** A `cat` on a terminal through the agent. */
async function agentEcho(transport: GuestTransport): Promise<Echo> {
  let feed = (_text: string): void => undefined;
  const stream = startStream(
    transport,
    { kind: "exec", argv: ["cat"], stdin: true, tty: { rows: 24, cols: 80, term: "xterm" } },
    { onStdout: (chunk) => feed(chunk.toString("latin1")) },
  );
  await stream.started;
  const echo = echoOf((text) => void stream.stdin.write(text));
  feed = echo.see;
  return { type: echo.type, end: () => stream.signal("KILL", true) };
}

/** The same through ssh. */
function sshEcho(ssh: Ssh): Echo {
  const child = spawn("ssh", [...ssh.options, "-tt", ssh.target, "cat"]);
  const echo = echoOf((text) => void child.stdin.write(text));
  child.stdout.on("data", (chunk: Buffer) => echo.see(chunk.toString("latin1")));
  return { type: echo.type, end: () => void child.kill() };
}

/** Milliseconds from each of `rounds` keys to its echo. */
async function echoTimes(echo: Echo): Promise<number[]> {
  await echo.type("warm");
  const times: number[] = [];
  for (let i = 0; i < rounds; i += 1)
    times.push(await time(() => echo.type(String.fromCharCode(97 + (i % 26)))));
  echo.end();
  return times;
}

const dir = mkdtempSync(join(tmpdir(), "vmsan-bench-"));
let close = (): Promise<void> => Promise.resolve();
let transport: GuestTransport;
let ssh: Ssh | undefined;
if (flags.vm === undefined) {
  const guest = await fakeGuest();
  transport = guest.channel;
  close = guest.close;
  ssh = await localSshd(dir);
} else {
  const { Vmsan } = (await import("../src/index.ts")) as unknown as {
    Vmsan: new () => { get: (id: string) => Promise<{ transport: GuestTransport }> };
  };
  transport = (await new Vmsan().get(flags.vm)).transport;
  if (flags.ssh !== undefined) ssh = clientOf(flags.ssh, flags.key, dir);
}

try {
  const execute = async (): Promise<void> => {
    await startStream(transport, { kind: "exec", argv: ["true"] }).exit;
  };
  const results: Record<string, { unit: string; vmsan: number; ssh?: number; with?: string }> = {};

  // An ssh connection that is open already, so that its key exchange is not measured; and one
  // that is not, which is what `ssh host command` costs.
  const control = [
    "-o",
    "ControlMaster=auto",
    "-o",
    `ControlPath=${join(dir, "cm")}`,
    "-o",
    "ControlPersist=60",
  ];
  const shared = ssh === undefined ? undefined : { ...ssh, options: [...ssh.options, ...control] };
  if (shared !== undefined) await runProgram("ssh", [...shared.options, shared.target, "true"]);
  await execute();
  const known = (list: number[]): { ssh?: number } =>
    list.length === 0 ? {} : { ssh: median(list) };
  // A loop each, and in turns: a login leaves an emulator's caches cold for whatever comes next.
  const comparisons: [name: string, withWhat: string, other: Ssh | undefined][] = [
    ["exec, connection open", "ssh -o ControlMaster", shared],
    ["exec, connection new", "ssh", ssh],
  ];
  for (const [name, withWhat, other] of comparisons) {
    const ours: number[] = [];
    const theirs: number[] = [];
    const turns = [
      async () => ours.push(await time(execute)),
      async () => {
        if (other === undefined) return;
        const { options, target } = other;
        theirs.push(await time(() => runProgram("ssh", [...options, target, "true"])));
      },
    ];
    for (let i = 0; i < rounds; i += 1) {
      for (const turn of i % 2 === 0 ? turns : turns.toReversed()) await turn();
    }
    results[name] = {
      unit: "ms",
      vmsan: median(ours),
      ...known(theirs),
      with: withWhat,
    };
  }

  const echo = await echoTimes(await agentEcho(transport));
  results["terminal echo"] = {
    unit: "ms",
    vmsan: median(echo),
    ...known(ssh === undefined ? [] : await echoTimes(sshEcho(ssh))),
    with: "ssh -tt",
  };

  execFileSync(
    "dd",
    ["if=/dev/urandom", `of=${join(dir, "big")}`, "bs=1M", `count=${bytes >> 20}`],
    { stdio: "ignore" },
  );
  const speeds: Record<string, number[]> = {};
  const measure = async (name: string, body: () => Promise<unknown>): Promise<void> => {
    const ms = await time(body);
    (speeds[name] ??= []).push(bytes / 1e6 / (ms / 1000));
  };
  const remote = flags.vm === undefined ? join(dir, "remote") : "/tmp/vmsan-bench";
  for (let i = 0; i < 3; i += 1) {
    await measure("up", () => upload(transport, [join(dir, "big")], remote));
    await measure("down", () => download(transport, remote, join(dir, "back")));
    if (ssh === undefined) continue;
    const { options, target } = ssh;
    await measure("scp up", () =>
      runProgram("scp", ["-q", ...options, join(dir, "big"), `${target}:${remote}.scp`]),
    );
    await measure("scp down", () =>
      runProgram("scp", ["-q", ...options, `${target}:${remote}.scp`, join(dir, "back.scp")]),
    );
    writeFileSync(join(dir, "batch-up"), `put ${join(dir, "big")} ${remote}.sftp\n`);
    writeFileSync(join(dir, "batch-down"), `get ${remote}.sftp ${join(dir, "back.sftp")}\n`);
    await measure("sftp up", () =>
      runProgram("sftp", ["-q", ...options, "-b", join(dir, "batch-up"), target]),
    );
    await measure("sftp down", () =>
      runProgram("sftp", ["-q", ...options, "-b", join(dir, "batch-down"), target]),
    );
  }
  for (const direction of ["up", "down"]) {
    for (const tool of ["scp", "sftp"]) {
      results[`${direction} against ${tool}`] = {
        unit: "MB/s",
        vmsan: median(speeds[direction] ?? []),
        ...known(speeds[`${tool} ${direction}`] ?? []),
        with: tool,
      };
    }
  }
  const table = Object.entries(results).map(([name, { unit, vmsan, ssh: other, with: tool }]) => {
    if (other === undefined) return `${name.padEnd(24)} ${vmsan.toFixed(2).padStart(9)} ${unit}`;
    const factor = unit === "ms" ? other / vmsan : vmsan / other;
    return `${name.padEnd(24)} ${vmsan.toFixed(2).padStart(9)} ${unit.padEnd(5)} ${(tool ?? "").padEnd(21)} ${other.toFixed(2).padStart(9)}   ${factor.toFixed(1)}×`;
  });
  process.stderr.write(`${table.join("\n")}\n`);
  const guest = flags.vm ?? "fake";
  process.stdout.write(
    `${JSON.stringify({ guest, rounds, bytes, cpus: cpus().length, load: loadavg()[0], results })}\n`,
  );
} finally {
  ssh?.stop();
  await close();
  rmSync(dir, { recursive: true, force: true });
}
process.exit(0);
