/** Warm starts, as they are without any switch: the second VM of a kind is a clone that looks like one that booted; and clones that wait. */
import { freemem } from "node:os";
import { readFile, readdir, rm, truncate } from "node:fs/promises";
import { once } from "node:events";
import { createServer, type AddressInfo } from "node:net";
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

/** Lines of that. */
const OWN_ROWS = 7;

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

/** What a program sees in a VM: what is that VM's own, line by line, its time in milliseconds, and the rest, which is all VMs'. */
async function look(
  warm = "",
  clones = "",
): Promise<{ own: string[]; time: number; seen: string; said: string }> {
  const [text, said] = await run(`${OWN}; date +%s%3N; ${LOOK}`, warm, [], clones);
  const lines = text.split("\n");
  return {
    own: lines.slice(0, OWN_ROWS),
    time: Number(lines[OWN_ROWS]),
    seen: lines
      .slice(OWN_ROWS + 1)
      .join("\n")
      .replaceAll(NAMES, "OWN"),
    said,
  };
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

/** What a program sees in a VM that has booted. */
let cold = "";
const likeCold = (seen: string): void => expect(seen).toBe(cold);

test(
  "the second VM of a kind comes from a template, and no program can tell",
  async () => {
    const off = await look("off");
    expect(off.said).toContain('"boot"');
    expect(await made()).toEqual([]);
    const first = await look();
    cold = first.seen;
    expect(first.said).toContain('"boot"');
    await expect.poll(made, { timeout: LIMIT_MS / 2, interval: 500 }).toHaveLength(1);
    // What it was made with is gone.
    await expect.poll(() => strayProcesses(here.dir), { timeout: 60_000 }).toEqual([]);
    const warm = await look();
    expect(warm.said).toContain('"load"');
    likeCold(warm.seen);
    likeCold(off.seen);

    await allDiffer(/"load":.*"answer":/);
    for (const [warmth, flags] of [
      ["off", []],
      ["", ["--no-warm"]],
    ] as const) {
      const [, said] = await run("true", warmth, [...flags]);
      expect(said).toContain('"boot"');
    }
    // A port that is taken keeps a VM from coming up either way; the template is not to blame.
    const taken = createServer().listen(0, "127.0.0.1");
    await once(taken, "listening");
    try {
      const publish = `127.0.0.1:${(taken.address() as AddressInfo).port}:80`;
      const args = ["run", "--memory", "256", "--publish-port", publish, "base", "--", "true"];
      expect((await vmsan(args, here)).code).not.toBe(0);
    } finally {
      taken.close();
    }
    expect(await made()).toHaveLength(1);
  },
  LIMIT_MS,
);

/** For what is removed behind somebody's back. */
const SOON = { timeout: 120_000, interval: 200 };

/** VMs that there are, also such as wait. */
async function vms(): Promise<Partial<VmRecord>[]> {
  const ids = await readdir(join(here.dir, "vms"));
  const texts = ids.map(
    // ENOENT, or half of it is there: it is going, or not made yet.
    async (id) => await readFile(join(here.dir, "vms", id, "vm.json"), "utf8").catch(() => "{}"),
  );
  return (await Promise.all(texts)).map((text) => JSON.parse(text) as Partial<VmRecord>);
}

/** The VMM of the clone that waits, or will. */
async function waiting(): Promise<number> {
  let pid = 0;
  const find = async (): Promise<number> => {
    const clone = (await vms()).find(({ status }) => status === "creating");
    return (pid = clone?.process?.pid ?? 0);
  };
  await expect.poll(find, SOON).toBeGreaterThan(0);
  return pid;
}

/** Nothing runs but the daemon, and nothing is there of any VM. */
async function nothingLeft(): Promise<void> {
  await expect.poll(vms, SOON).toEqual([]);
  await expect.poll(() => strayProcesses(here.dir), SOON).toEqual([]);
  const networks = await readdir(join(here.dir, "network"));
  expect(networks.filter((name) => name.startsWith("vm-"))).toEqual([]);
}

/** Bytes of memory without which none is made to wait, and as many again for those who run beside this test. */
const MEMORY = 2 * 2 ** 30;

test(
  "a clone that waits is like others, each is somebody else, and whatever is killed, none is left",
  async ({ skip }) => {
    skip(freemem() < MEMORY, "no clone waits on a host with less than 2 GiB of memory available");
    await vmsanOk(["daemon", "stop"], here);
    const from = Date.now();
    const each: string[][] = [];
    for (const how of ["answer", "resume", "resume"]) {
      // It is there, or begun, when the VM before it has come up: the next one gets it.
      const { own, time, seen, said } = await look("", "1");
      expect(said).toContain(`"${how}"`);
      likeCold(seen);
      expect(time).toBeGreaterThan(from - 50);
      expect(time).toBeLessThan(Date.now() + 50);
      each.push(own);
    }
    for (const [row, line] of (each[0] ?? []).entries()) {
      expect(new Set(each.map((own) => own[row])).size, line).toBe(3);
    }
    process.kill(await waiting(), "SIGKILL");
    await nothingLeft();
    await run("true", "", [], "1");
    await waiting();
    // Nobody sees it, and the next daemon, which has none, ends it.
    expect(JSON.parse(await vmsanOk(["list", "--json"], here))).toMatchObject({ vms: [] });
    const info = await here.vmsan.daemon.info();
    if (info === undefined) throw new Error("no daemon runs");
    process.kill(info.pid, "SIGKILL");
    await vmsanOk(["list"], here);
    await nothingLeft();
  },
  LIMIT_MS,
);

test(
  "of an image without a template the first VM is a machine that had booted for nobody",
  async () => {
    for (const name of await made()) await rm(join(shelf(), name), { recursive: true });
    expect(await booted()).toHaveLength(1);
    const { seen, said } = await look();
    expect(said).toMatch(/"load":.*"boot":/);
    likeCold(seen);
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
