/** VMs that sleep and wake, roll back, and start from a template, in a guest that really runs. */
import { readdir } from "node:fs/promises";
import { spawn } from "node:child_process";
import { connect } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import {
  freshDir,
  removeDir,
  strayProcesses,
  vmsan,
  vmsanBin,
  vmsanJson,
  vmsanOk,
} from "./support.ts";

let dir = "";
beforeAll(async () => {
  dir = await freshDir(["kernels", "runtimes", "initramfs", "probes", "images", "rootfs"]);
});
afterAll(async () => await removeDir(dir));

const sh = async (script: string): Promise<string> =>
  (await vmsanOk(["exec", "s", "-u", "root", "--", "sh", "-c", script], { dir })).trim();
const status = async (): Promise<string | undefined> => {
  const { vms } = await vmsanJson<{ vms: { status: string }[] }>(["list"], { dir });
  return vms[0]?.status;
};

const PORT = 20_000 + (process.pid % 20_000);
const SERVER = `perl -MIO::Socket::INET -e '
  my $s = IO::Socket::INET->new(Listen => 5, LocalAddr => "0.0.0.0", LocalPort => 7000) or die;
  while (1) { my $c = $s->accept or next; print $c "here"; close $c }'`;

/** What the guest's server says to a connection from outside. */
async function ask(): Promise<string> {
  const socket = connect(PORT, "127.0.0.1");
  let said = "";
  for await (const chunk of socket) said += String(chunk);
  return said;
}

test("streams, ports and files of a VM that sleeps, wakes and goes back", async () => {
  const create = ["create", "--name", "s", "--memory", "256", "--publish-port", `${PORT}:7000`];
  await vmsanJson(create, { dir });
  await vmsanOk(["exec", "s", "-d", "--", "sh", "-c", SERVER], { dir });
  // Until it listens, connections are cut.
  await expect.poll(async () => await ask().catch(() => ""), { timeout: 60_000 }).toBe("here");

  // A command with somebody attached: not a line is lost or doubled.
  const count = "i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo $i; sleep 0.05; done";
  const child = spawn(vmsanBin, ["exec", "s", "--", "sh", "-c", count], {
    env: { ...process.env, VMSAN_DIR: dir },
  });
  let lines = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (lines += text));
  const ended = new Promise((resolve) => child.on("close", resolve));
  await expect.poll(() => lines, { timeout: 60_000 }).toContain("\n");
  for (let cycle = 0; cycle < 3; cycle += 1) {
    await vmsanOk(["suspend", "s"], { dir });
    expect(await status()).toBe("suspended");
    expect(strayProcesses(dir)).toEqual(
      expect.not.arrayContaining([expect.stringMatching(/qemu/)]),
    );
    await vmsanOk(["resume", "s"], { dir });
  }
  await ended;
  expect(lines).toBe(Array.from({ length: 300 }, (_, index) => `${index + 1}\n`).join(""));

  // Whoever needs it wakes it, also with another daemon.
  await vmsanOk(["suspend", "s"], { dir });
  await vmsanOk(["daemon", "stop"], { dir });
  expect(await status()).toBe("suspended");
  expect(await ask()).toBe("here");
  expect(await status()).toBe("running");
  await sh("echo old >/root/file; echo old >/dev/shm/file");
  await vmsanOk(["snapshot", "create", "s", "--name", "then"], { dir });
  await sh("echo new >/root/file; rm /dev/shm/file; echo more >/root/more; sync");
  await vmsanOk(["suspend", "s"], { dir });
  await vmsanOk(["restore", "s", "then"], { dir });
  expect(await sh("cat /root/file /dev/shm/file; ls /root/more 2>&1 | wc -l; hostname")).toBe(
    "old\nold\n1\ns",
  );
  expect(await ask()).toBe("here");
  await vmsanOk(["rm", "-f", "s"], { dir });
  await vmsanOk(["snapshot", "rm", "then"], { dir });
  expect(await readdir(join(dir, "vms"))).toEqual([]);
});

/** What a program sees, but for what is a VM's own. */
const LOOK = `mount | sort; cat /proc/cmdline /etc/hosts /etc/resolv.conf; id; pwd; env | sort; ulimit -a
  ls -A / /etc /dev /run/vmsan; cat /proc/sys/net/ipv4/ping_group_range; ls /sys/fs/cgroup; stat -c %s /etc/machine-id
  ip -o addr | wc -l; ip route | wc -l; ps ax -o args | grep -v '^\\['`;

test("a VM from a template looks as one that has booted", async () => {
  const run = ["run", "--memory", "256", "--verbose", "base"];
  const own = /vm-[0-9a-f]{8}|198\.19\.\d+\.\d+/g;
  const look = async (warm: "on" | "off"): Promise<{ seen: string; said: string }> => {
    const outcome = await vmsan([...run, "--", "sh", "-c", LOOK], {
      dir,
      env: { VMSAN_WARM: warm },
    });
    expect(outcome.code, outcome.stderr).toBe(0);
    return { seen: outcome.stdout.toString().replaceAll(own, "OWN"), said: outcome.stderr };
  };
  const cold = await look("on");
  expect(cold.said).toContain('"boot"');
  const made = async (): Promise<string[]> => {
    const names = await readdir(join(dir, "templates")).catch(() => []);
    return names.filter((name) => /^[0-9a-f]{32}$/.test(name));
  };
  await expect.poll(made, { timeout: 200_000, interval: 500 }).toHaveLength(1);
  const warm = await look("on");
  expect(warm.said).toContain('"load"');
  expect(warm.seen).toBe(cold.seen);
  expect((await look("off")).said).toContain('"boot"');
  // The template that the last start may have made anew has a process of its own for a while.
  await expect.poll(() => strayProcesses(dir), { timeout: 120_000 }).toEqual([]);
});
