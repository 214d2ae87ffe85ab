/** Warm starts, as they are without any switch: the second VM of a kind is a clone that looks like one that booted. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { installation } from "../fixtures/ladder.ts";
import { strayProcesses, vmsan } from "./support.ts";

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

/** Run a script in a VM of its own. Without a word about it, warm starts are on. */
async function run(script: string, warm = "", flags: string[] = []): Promise<[string, string]> {
  const args = ["run", "--memory", "256", "--verbose", ...flags, "base", "--", "sh", "-c", script];
  const outcome = await vmsan(args, { dir: here.dir, env: { VMSAN_WARM: warm } });
  expect(outcome.code, outcome.stderr).toBe(0);
  return [outcome.stdout.toString(), outcome.stderr];
}

const made = async (): Promise<string[]> => {
  // ENOENT until the first one is begun.
  const names = await readdir(join(here.dir, "templates")).catch(() => []);
  return names.filter((name) => /^[0-9a-f]{32}$/.test(name));
};

test(
  "the second VM of a kind comes from a template, and no program can tell",
  async () => {
    const own = /s-[0-9a-f]{16}|vm-[0-9a-f]{8}|198\.19\.\d+\.\d+/g;
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
    expect(warm.replaceAll(own, "OWN")).toBe(cold.replaceAll(own, "OWN"));
    expect(warm.replaceAll(own, "OWN")).toBe(off.replaceAll(own, "OWN"));

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
    for (const [warmth, flags] of [
      ["off", []],
      ["", ["--no-warm"]],
    ] as const) {
      const [, said] = await run("true", warmth, [...flags]);
      expect(said).toContain('"boot"');
    }
    expect(await made()).toHaveLength(1);
    expect(strayProcesses(here.dir)).toEqual([]);
  },
  LIMIT_MS,
);
