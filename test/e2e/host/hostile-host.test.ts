/**
 * Hosts as they are met: full disks, no inodes, read-only places, few descriptors, strange paths,
 * stale sockets. Each ends in a coded error with a remedy, or works; the daemon goes on, and once
 * there is room again so does everything. VMs run on the fake driver: what is tried is around them.
 */
import { spawn } from "node:child_process";
import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { listKernels } from "../../../src/boot/kernel.ts";
import { run } from "../../../src/util/run.ts";
import { tool } from "../images.ts";
import {
  errorCode,
  preparedDir,
  processesOf,
  vmsan,
  vmsanJson,
  vmsanOk,
  vmsanBin,
} from "../support.ts";

const isRoot = process.getuid?.() === 0;
let base = "";
let dir = "";
let count = 0;
let kernel = "";
const mounts: string[] = [];

beforeAll(async () => {
  base = await mkdtemp(join(tmpdir(), "vmsan-host-"));
  const [first] = await listKernels(join(preparedDir, "kernels"));
  if (first === undefined) throw new Error("no kernel is prepared");
  kernel = join(preparedDir, "kernels", first.id, "vmlinux");
});
afterEach(async () => {
  const { stdout } = await vmsan(["list", "--json"], { dir });
  const vms = stdout.toString().startsWith('{"count"')
    ? (JSON.parse(stdout.toString()) as { vms: { id: string }[] }).vms
    : [];
  if (vms.length > 0) await vmsan(["rm", "-f", ...vms.map(({ id }) => id)], { dir });
  await vmsan(["daemon", "stop"], { dir });
  for (const mount of mounts.splice(0).toReversed()) await run("umount", ["-l", mount]);
  expect(processesOf(dir)).toEqual([]);
});
afterAll(() => rm(base, { recursive: true, force: true }));

/** A fresh VMSAN_DIR, on a file system of its own if options for tmpfs are given. */
async function fresh(options?: string, name = `v${(count += 1)}`): Promise<string> {
  dir = join(base, name);
  await mkdir(dir);
  if (options !== undefined) {
    await tool("mount", "-t", "tmpfs", "-o", options, "tmpfs", dir);
    mounts.push(dir);
  }
  await writeFile(join(dir, "base.ext4"), "");
  return dir;
}

const create = (name: string): string[] =>
  `create --driver fake --network none --name ${name}`
    .split(" ")
    .concat("--rootfs", join(dir, "base.ext4"), "--kernel", kernel);

/** Files until there is room for none. @returns a function that removes them */
async function fill(kind: "inodes" | "bytes"): Promise<() => Promise<void>> {
  const script =
    kind === "inodes"
      ? `i=0; while : >"fill$i"; do i=$((i+1)); done`
      : "dd if=/dev/zero of=fill bs=4k";
  await run("sh", ["-c", `cd "$1"; ${script}`, "sh", dir]);
  return async () => {
    await run("sh", ["-c", 'rm -f "$1"/fill*', "sh", dir]);
  };
}

test.runIf(isRoot).each([
  ["bytes", "size=320m"],
  ["inodes", "nr_inodes=120,size=320m"],
] as const)(
  "no %s left: said with a remedy; what runs goes on, and so does all with room again",
  async (kind, options) => {
    await fresh(options);
    await vmsanOk(create("one"), { dir });
    const free = await fill(kind);
    expect(await errorCode(create("two"), { dir })).toBe("ERR_DISK_FULL");
    expect(await vmsanOk(["exec", "one", "echo", "goes on"], { dir })).toBe("goes on\n");
    await vmsanOk(["stop", "one"], { dir });
    expect((await vmsanJson<{ statuses: object }>(["list"], { dir })).statuses).toEqual({
      stopped: 1,
    });
    expect(await errorCode(["start", "one"], { dir })).toBe("ERR_DISK_FULL");
    expect((await vmsanJson<{ statuses: object }>(["list"], { dir })).statuses).toEqual({
      stopped: 1,
    });
    await free();
    await vmsanOk(["start", "one"], { dir });
    await vmsanOk(create("two"), { dir });
    const refill = await fill(kind);
    await vmsanOk(["rm", "-f", "one", "two"], { dir });
    expect(await readdir(join(dir, "vms"))).toEqual([]);
    await refill();
  },
);

test.runIf(isRoot)("read-only places are named", async () => {
  await fresh();
  await tool("mount", "--bind", dir, dir);
  mounts.push(dir);
  await tool("mount", "-o", "remount,bind,ro", dir);
  const { stdout } = await vmsan(["list", "--json"], { dir });
  const { error } = JSON.parse(stdout.toString()) as { error: Record<string, string> };
  expect(error).toMatchObject({ code: "ERR_DAEMON_START", why: expect.stringContaining("EROFS") });
  await tool("mount", "-o", "remount,bind,rw", dir);
  await mkdir(join(dir, "vms"));
  await tool("mount", "-t", "tmpfs", "-o", "ro", "tmpfs", join(dir, "vms"));
  mounts.push(join(dir, "vms"));
  expect(await errorCode(create("one"), { dir })).toBe("ERR_HOST_PERMISSION");
});

test("256 descriptors: commands beyond them are refused in words, the others whole", async () => {
  await fresh();
  const limited = spawn("prlimit", ["--nofile=256:256", vmsanBin, "daemon", "start"], {
    env: { ...process.env, VMSAN_DIR: dir },
    stdio: "ignore",
  });
  await new Promise((resolve) => limited.once("close", resolve));
  await vmsanOk(create("one"), { dir });
  const { Vmsan } = await import("../../../src/index.ts");
  const vm = await new Vmsan({ dir }).get("one");
  const results = await Promise.allSettled(
    Array.from({ length: 300 }, (_, i) => vm.exec(["sh", "-c", `sleep 0.3; echo ${i}`])),
  );
  let whole = 0;
  for (const [i, result] of results.entries()) {
    if (result.status === "fulfilled") {
      expect(result.value.stdout.toString()).toBe(`${i}\n`);
      whole += 1;
    } else expect((result.reason as { code: string }).code).toMatch(/^ERR_(AGENT|HOST)_/);
  }
  expect(whole).toBeGreaterThan(40);
  expect((await vm.exec(["echo", "after"])).stdout.toString()).toBe("after\n");
});

test("a VMSAN_DIR with blanks, quotes, a command substitution and 200 characters", async () => {
  await fresh(undefined, `a b'c "d" $(touch x) é\t${"x".repeat(180)}`);
  expect(dir.length).toBeGreaterThan(200);
  await vmsanOk(create("one"), { dir });
  await writeFile(join(dir, "file"), "content");
  await vmsanOk(["upload", "one", join(dir, "file"), "-d", join(dir, "copy")], { dir });
  expect(await vmsanOk(["exec", "one", "cat", join(dir, "copy")], { dir })).toBe("content");
  await vmsanOk(["stop", "one"], { dir });
  await vmsanOk(["start", "one"], { dir });
  await vmsanOk(["daemon", "stop"], { dir });
  expect(await vmsanOk(["exec", "one", "echo", "found"], { dir })).toBe("found\n");
});

test("stale sockets and damaged state of the daemon are no obstacle", async () => {
  await fresh();
  const runDir = join(dir, "run");
  await mkdir(runDir);
  // A socket that nobody listens to any more: its owner was killed.
  const dead = spawn(process.execPath, [
    "-e",
    `require("net").createServer().listen(${JSON.stringify(join(runDir, "daemon.sock"))}, () => console.log("up"))`,
  ]);
  await new Promise((resolve) => dead.stdout.once("data", resolve));
  dead.kill("SIGKILL");
  await new Promise((resolve) => dead.once("close", resolve));
  expect(await readdir(runDir)).toContain("daemon.sock");
  await writeFile(join(runDir, "daemon.lock"), "no database\n".repeat(1000));
  await writeFile(join(runDir, "daemon.log"), Buffer.alloc(9 << 20));
  await vmsanOk(["list"], { dir });
  // Of many that start at once, one serves.
  await vmsanOk(["daemon", "stop"], { dir });
  const all = await Promise.all(
    Array.from({ length: 6 }, () => vmsanJson<{ pid: number }>(["daemon", "start"], { dir })),
  );
  expect(all).toHaveLength(6);
  // Those that came too late end by themselves.
  const daemons = (): string[] => processesOf(dir).filter((line) => line.includes("daemon/main"));
  await expect.poll(daemons, { timeout: 20_000 }).toHaveLength(1);
});

test("a daemon that does not answer is no daemon: said in bounded time", async () => {
  await fresh();
  const { pid } = await vmsanJson<{ pid: number }>(["daemon", "start"], { dir });
  process.kill(pid, "SIGSTOP");
  try {
    const env = { VMSAN_DAEMON_PATIENCE: "2" };
    const outcomes = await Promise.all([
      errorCode(["list"], { dir, env, timeoutMs: 60_000 }),
      errorCode(["stop", "none"], { dir, env, timeoutMs: 60_000 }),
      errorCode(create("one"), { dir, env, timeoutMs: 60_000 }),
      errorCode(["daemon", "status"], { dir, env, timeoutMs: 60_000 }),
    ]);
    expect(new Set(outcomes)).toEqual(new Set(["ERR_DAEMON_SILENT"]));
  } finally {
    process.kill(pid, "SIGCONT");
  }
  expect(await vmsanJson(["list"], { dir })).toMatchObject({ count: expect.any(Number) });
});

test.runIf(isRoot)("a /tmp from which nothing can be executed", async () => {
  await fresh();
  const script = `mount -t tmpfs -o noexec tmpfs /tmp && mkdir /tmp/v && VMSAN_DIR=/tmp/v && export VMSAN_DIR &&
    : >/tmp/v/base && "$1" create --driver fake --network none --name q --kernel "$2" --rootfs /tmp/v/base &&
    "$1" exec q echo works; "$1" rm -f q; "$1" daemon stop`;
  const outcome = await run("unshare", ["--mount", "sh", "-c", script, "sh", vmsanBin, kernel]);
  expect(outcome.stdout).toContain("works\n");
});

test("secrets of commands and VMs are in no log, list of processes, console or file for others", async () => {
  await fresh();
  const secret = `s3cret-${process.pid}`;
  await vmsanOk([...create("one"), "-e", "TOKEN"], { dir, env: { TOKEN: secret } });
  expect(await vmsanOk(["exec", "one", "sh", "-c", "echo $TOKEN"], { dir })).toBe(`${secret}\n`);
  const running = spawn(vmsanBin, ["exec", "-e", "OTHER", "one", "sh", "-c", "echo up; sleep 60"], {
    env: { ...process.env, VMSAN_DIR: dir, OTHER: secret },
    stdio: ["ignore", "pipe", "ignore"],
  });
  await new Promise((resolve) => running.stdout.once("data", resolve));
  const lines: string[] = [];
  for (const pid of (await readdir("/proc")).filter((name) => /^\d+$/.test(name))) {
    lines.push(await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => ""));
  }
  expect(lines.filter((line) => line.includes(secret))).toEqual([]);
  running.kill();
  const found = await run("grep", ["-rl", secret, dir]);
  // The VM's own record has what every command of it gets; it is its owner's alone.
  const files = found.stdout.trim().split("\n");
  expect(files).toEqual([expect.stringMatching(/\/vms\/vm-[0-9a-f]{8}\/vm\.json$/)]);
  const modes = await run("stat", ["-c", "%a", files[0] ?? "", join(files[0] ?? "", "..")]);
  expect(modes.stdout).toBe("600\n700\n");
});
