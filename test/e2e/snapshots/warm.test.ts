/** Warm starts, as they are without any switch: the second VM of a kind is a clone that looks like one that booted. */
import { readFile, readdir, rm, truncate } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import type { VmRecord } from "../../../src/model/vm.ts";
import { installation } from "../../fixtures/ladder.ts";
import { strayProcesses, vmsan, vmsanOk } from "../support.ts";

const LIMIT_MS = 600_000;
const here = installation("base");

/** What a program sees, but for what is a VM's own. */
const LOOK = `mount | sort; cat /proc/cmdline /etc/hosts /etc/resolv.conf /proc/1/cmdline /proc/1/environ | tr '\\0' ' '
  id; pwd; umask; tty; env | sort; ulimit -a; nproc; ls /proc/self/fd | wc -l; cat /proc/self/cgroup
  grep -E '^(Cap|Seccomp|NoNew|Groups|SigIgn|SigBlk)' /proc/self/status; grep -E '^(MemTotal|SwapTotal)' /proc/meminfo
  ls -lA --time-style=+ -I resolv.conf -I hosts -I hostname / /etc /var /tmp /root /dev /dev/shm /run /run/vmsan | grep -vE '^total| proc$'
  cat /proc/sys/net/ipv4/ping_group_range /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/modprobe; ls /sys/fs/cgroup /sys/block
  stat -c %s /etc/machine-id; ip -o addr | wc -l; ip route | sed 's/[0-9.]* dev/dev/'; df -k / | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2
  cut -d ' ' -f 1 /proc/modules | sort; cat /sys/class/net/eth0/mtu; ps ax -o args | grep -v '^\\['`;

/** What no two VMs have in common. */
const OWN = `cat /proc/sys/kernel/random/boot_id /proc/sys/kernel/random/uuid /etc/machine-id /run/vmsan/generation /sys/class/net/eth0/address
  head -c 10000 /dev/urandom | sha256sum; hostname`;

/** What differs from VM to VM in what programs see. */
const NAMES = /s-[0-9a-f]{16}|vm-[0-9a-f]{8}|198\.19\.\d+\.\d+/g;

/** Run a script in a VM of its own. Without a word about it, warm starts are on. */
async function run(
  script: string,
  warm = "",
  flags: string[] = [],
  clones = "",
): Promise<[string, string]> {
  const args = ["run", "--memory", "256", "--verbose", ...flags, "base", "--", "sh", "-c", script];
  const env = { VMSAN_WARM: warm, VMSAN_READY_CLONES: clones };
  const outcome = await vmsan(args, { dir: here.dir, env });
  expect(outcome.code, outcome.stderr).toBe(0);
  return [outcome.stdout.toString(), outcome.stderr];
}

const shelf = (): string => join(here.dir, "templates");
/** Templates of one kind. */
const kept = async (kind: RegExp): Promise<string[]> => {
  // ENOENT until the first one is begun.
  const names = await readdir(shelf()).catch(() => []);
  return names.filter((name) => kind.test(name));
};
const made = async (): Promise<string[]> => await kept(/^[0-9a-f]{32}$/);
const booted = async (): Promise<string[]> => await kept(/^booted-[0-9a-f]{32}$/);

/** Programs in several VMs at once see what is each one's own, and the time. */
async function allDiffer(expected: RegExp): Promise<void> {
  const from = Date.now();
  const several = await Promise.all([1, 2, 3].map(async () => await run(`${OWN}; date +%s%3N`)));
  const lines = several.map(([text]) => text.trim().split("\n"));
  for (const [row, line] of (lines[0] ?? []).slice(0, -1).entries()) {
    expect(new Set(lines.map((other) => other[row])).size, line).toBe(3);
  }
  for (const line of lines) {
    expect(Number(line.at(-1))).toBeGreaterThan(from - 50);
    expect(Number(line.at(-1))).toBeLessThan(Date.now() + 50);
  }
  for (const [, said] of several) expect(said).toMatch(expected);
}

test(
  "the second VM of a kind comes from a template, and no program can tell",
  async () => {
    const [off, offSaid] = await run(LOOK, "off");
    expect(offSaid).toContain('"boot"');
    expect(await made()).toEqual([]);
    const [cold, coldSaid] = await run(LOOK);
    expect(coldSaid).toContain('"boot"');
    await expect.poll(made, { timeout: LIMIT_MS / 2, interval: 500 }).toHaveLength(1);
    // What it was made with is gone.
    await expect.poll(() => strayProcesses(here.dir), { timeout: 60_000 }).toEqual([]);
    const [warm, warmSaid] = await run(LOOK);
    expect(warmSaid).toContain('"load"');
    expect(warm.replaceAll(NAMES, "OWN")).toBe(cold.replaceAll(NAMES, "OWN"));
    expect(warm.replaceAll(NAMES, "OWN")).toBe(off.replaceAll(NAMES, "OWN"));

    await allDiffer(/"load":.*"answer":/);
    for (const [warmth, flags] of [
      ["off", []],
      ["", ["--no-warm"]],
    ] as const) {
      const [, said] = await run("true", warmth, [...flags]);
      expect(said).toContain('"boot"');
    }
    expect(await made()).toHaveLength(1);

    // Of an image without a template the first VM is a machine that had booted for nobody.
    for (const name of await made()) await rm(join(shelf(), name), { recursive: true });
    expect(await booted()).toHaveLength(1);
    const [first, firstSaid] = await run(LOOK);
    expect(firstSaid).toMatch(/"load":.*"boot":/);
    expect(first.replaceAll(NAMES, "OWN")).toBe(cold.replaceAll(NAMES, "OWN"));
    await allDiffer(/"load":/);
    const from = Math.floor(Date.now() / 1000);
    const stamps = "stat -c %Y / /etc/hosts | sort -n | head -n 1";
    const [stamped] = await run(stamps, "", ["--disk", "3g"]);
    expect(Number(stamped)).toBeGreaterThanOrEqual(from);
    // One that is damaged is not used again: the VM boots.
    const [machine = ""] = await booted();
    await truncate(join(shelf(), machine, "state"), 100);
    const [, damagedSaid] = await run("true", "", ["--disk", "4g"]);
    expect(damagedSaid).not.toContain('"load"');
    expect(damagedSaid).toContain('"boot"');
    await expect.poll(() => strayProcesses(here.dir), { timeout: 60_000 }).toEqual([]);
  },
  LIMIT_MS,
);

/** For what is removed behind somebody's back. */
const SOON = { timeout: 120_000, interval: 200 };

/** Directories of VMs, also of such as wait. */
const vms = async (): Promise<string[]> => await readdir(join(here.dir, "vms"));

/** Run a script in a clone that has waited; the first VM of a daemon is none. */
async function runReady(script: string): Promise<string> {
  for (let tries = 0; tries < 20; tries += 1) {
    const [text, said] = await run(script, "", [], "1");
    if (said.includes('"resume"')) return text;
  }
  throw new Error("no VM was a clone that had waited");
}

/** The VMM of the clone that waits, or will. */
async function waiting(): Promise<number> {
  let pid: number | undefined;
  await expect
    .poll(async () => {
      const [id = ""] = await vms();
      // ENOENT, or half of it is there: not yet.
      const text = await readFile(join(here.dir, "vms", id, "vm.json"), "utf8").catch(() => "{}");
      pid = (JSON.parse(text) as Partial<VmRecord>).process?.pid;
      return pid;
    }, SOON)
    .toBeDefined();
  if (pid === undefined) throw new Error("no clone waits");
  return pid;
}

/** Nothing runs but the daemon, and nothing is there of any VM. */
async function nothingLeft(): Promise<void> {
  await expect.poll(vms, SOON).toEqual([]);
  await expect.poll(() => strayProcesses(here.dir), SOON).toEqual([]);
  const networks = await readdir(join(here.dir, "network"));
  expect(networks.filter((name) => name.startsWith("vm-"))).toEqual([]);
}

const withReady = process.env["VMSAN_TEST_READY"] === "1";
if (!withReady) console.log("clones that wait, which are off by default: VMSAN_TEST_READY=1");

test.skipIf(!withReady)(
  "a clone that waits is like others, each is somebody else, and whatever is killed, none is left",
  async () => {
    await vmsanOk(["daemon", "stop"], here);
    const [clone, said] = await run(LOOK, "", [], "1");
    expect(said).toContain('"load"');
    expect((await runReady(LOOK)).replaceAll(NAMES, "OWN")).toBe(clone.replaceAll(NAMES, "OWN"));
    const from = Date.now();
    const two = [await runReady(`${OWN}; date +%s%3N`), await runReady(`${OWN}; date +%s%3N`)];
    const [one = [], other = []] = two.map((text) => text.trim().split("\n"));
    expect(one.slice(0, -1).filter((line, row) => line === other[row])).toEqual([]);
    for (const line of [one.at(-1), other.at(-1)]) {
      expect(Number(line)).toBeGreaterThan(from - 50);
      expect(Number(line)).toBeLessThan(Date.now() + 50);
    }
    // Nobody sees it, and the next daemon, which has none, ends it.
    await waiting();
    expect(JSON.parse(await vmsanOk(["list", "--json"], here))).toMatchObject({ vms: [] });
    const info = await here.vmsan.daemon.info();
    if (info === undefined) throw new Error("no daemon runs");
    process.kill(info.pid, "SIGKILL");
    await vmsanOk(["list"], here);
    await nothingLeft();

    await vmsanOk(["daemon", "stop"], here);
    await run("true", "", [], "1");
    process.kill(await waiting(), "SIGKILL");
    await nothingLeft();
    await run("true", "", [], "1");
    await waiting();
    await vmsanOk(["daemon", "stop"], here);
    await nothingLeft();
  },
  LIMIT_MS,
);
