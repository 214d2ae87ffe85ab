/** Snapshots, clones and forks of VMs that really run: what is there in a clone, and what differs. */
import { createHash } from "node:crypto";
import { readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import {
  errorCode,
  freshDir,
  removeDir,
  strayProcesses,
  tree,
  vmsan,
  vmsanJson,
  vmsanOk,
} from "./support.ts";

let dir = "";
beforeAll(async () => {
  // With the disks too: what is tested here begins after them.
  dir = await freshDir(["kernels", "runtimes", "initramfs", "probes", "images", "rootfs"]);
});
afterAll(async () => await removeDir(dir));

/** SHA-256 of 200,000,000 times the letter x. */
const WHOLE = createHash("sha256").update(Buffer.alloc(200_000_000, "x")).digest("hex");
const LOOK_AT_DISK = "stat -c %s /root/big";

/** Run a script in a VM, which must succeed. */
const sh = async (vm: string, script: string): Promise<string> =>
  (await vmsanOk(["exec", vm, "-u", "root", "--", "sh", "-c", script], { dir })).trim();

/** A server that answers each connection with its number and goes on after a broken one. */
const SERVER = `perl -MIO::Socket::INET -e '
  my $s = IO::Socket::INET->new(Listen => 5, LocalAddr => "0.0.0.0", LocalPort => 7000) or die;
  my $n = 0; while (1) { my $c = $s->accept or next; print $c ++$n; close $c }'`;
const ask = `perl -MIO::Socket::INET -e 'print IO::Socket::INET->new("127.0.0.1:7000")->getline'`;

/** What changes a VM, and what a clone must have of it. */
const LOOK = `stat -c %s /root/big; tail -c 99999 /root/big | sha256sum; cat /dev/shm/t; ls /proc/$(cat /run/reader)/fd | wc -l`;
/** All of the 200 MB: once where it matters, because emulation is slow. */
const HASH = "sha256sum </root/big";

test("a clone has processes, files and connections of the source, and an identity of its own", async () => {
  await vmsanJson(["create", "--name", "a", "--memory", "384"], { dir });
  const script = `mkdir -p /etc/vmsan/restored.d
    printf '#!/bin/sh\\necho "$VMSAN_REASON $VMSAN_GENERATION" >>/etc/vmsan/hook.log\\n' >/etc/vmsan/restored.d/10-log
    chmod 755 /etc/vmsan/restored.d/10-log
    perl -e 'print "x" x 1000000 for 1..200' >/root/big
    echo tmpfs >/dev/shm/t; (exec 9</root/big; echo $$ >/run/reader; sleep 100000) & sleep 0.1`;
  await vmsanOk(["exec", "a", "-d", "-u", "root", "--", "sh", "-c", SERVER], { dir });
  await sh("a", `exec >/dev/null 2>&1; ${script}`);
  const counter = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done";
  const counterId = (await vmsanOk(["exec", "a", "-d", "--", "sh", "-c", counter], { dir })).trim();
  expect(await sh("a", ask)).toBe("1");
  const before = await sh("a", LOOK);

  const snapshot = await vmsanJson<{
    snapshotId: string;
    pauseMs: number;
    sizes: { stored: number; shared: number };
  }>(["snapshot", "create", "a", "--name", "s"], { dir });
  // 200 MB of fresh data are shared, not copied; secrets in memory are their owner's alone.
  expect(snapshot.sizes.shared).toBeGreaterThan(190_000_000);
  const place = join(dir, "snapshots", snapshot.snapshotId);
  for (const name of await readdir(place)) {
    expect([name, (await stat(join(place, name))).mode & 0o077]).toEqual([name, 0]);
  }

  const made = await vmsanJson<{ vms: { vmId: string; name: string }[] }>(
    ["create", "--snapshot", "s", "-n", "2", "--name", "c", "--label", "k=v"],
    { dir },
  );
  expect(made.vms.map(({ name }) => name)).toEqual(["c-1", "c-2"]);
  for (const [index, name] of ["c-1", "c-2"].entries()) {
    const hook = await sh(name, "cat /etc/vmsan/hook.log");
    expect(await sh(name, LOOK)).toBe(before);
    expect(hook).toBe(`clone ${await sh(name, "cat /run/vmsan/generation")}`);
    expect(await sh(name, ask)).toBe("2");
    expect(await sh(name, "hostname; grep -c . /etc/hostname")).toBe(`${name}\n1`);
    // The command goes on, and is found like any other.
    const { commands } = await vmsanJson<{ commands: { id: string; running: boolean }[] }>(
      ["ps", name],
      { dir },
    );
    expect(commands.find(({ id }) => id === counterId)?.running).toBe(true);
    const counted = async (): Promise<number> =>
      Number((await vmsanOk(["logs", name, counterId, "--tail", "1"], { dir })).trim());
    const first = await counted();
    await expect.poll(counted, { timeout: 20_000 }).toBeGreaterThan(first);
    // Clocks: the host's, and never back.
    const from = Date.now();
    const guest = Number(await sh(name, "date +%s%3N"));
    expect(guest).toBeGreaterThan(from - 50);
    expect(guest).toBeLessThan(Date.now() + 50);
    expect(index).toBeLessThan(2);
  }
  const unique =
    "ip -o link show eth0; ip -o -4 address show eth0; cat /etc/machine-id /run/vmsan/generation /proc/sys/kernel/random/uuid; head -c 32 /dev/urandom | sha256sum";
  const identities = await Promise.all(["a", "c-1", "c-2"].map((name) => sh(name, unique)));
  const lines = identities.map((text) => text.split("\n"));
  for (const [row, line] of (lines[0] ?? []).entries()) {
    expect(new Set([line, lines[1]?.[row], lines[2]?.[row]]).size, line).toBe(3);
  }
  // What a clone does is its own affair.
  await sh("c-1", "echo other >/root/big; rm /dev/shm/t; sync");
  expect(await sh("a", LOOK)).toBe(before);
  expect(await sh("a", ask)).toBe("2");

  // A clone of a clone, which has no memory of its own to share: three at once.
  await sh("c-2", "echo second >/dev/shm/t");
  await vmsanJson(["fork", "c-2", "-n", "2", "--name", "d"], { dir });
  for (const name of ["d-1", "d-2"]) expect(await sh(name, "cat /dev/shm/t")).toBe("second");
  expect((await tree(join(dir, "snapshots"))).filter((name) => name.includes("new"))).toEqual([]);

  await vmsanOk(["rm", "-f", "d-1", "d-2", "c-1"], { dir });
  await vmsanOk(["stop", "c-2"], { dir });
  await vmsanOk(["start", "c-2"], { dir });
  expect(await sh("c-2", HASH)).toBe(`${WHOLE}  -`);
  expect(await sh("a", HASH)).toBe(`${WHOLE}  -`);
  await vmsanOk(["rm", "-f", "c-2"], { dir });
});

test("what a snapshot has fixed, another machine's and a damaged one are refused with the reason", async () => {
  expect(await errorCode(["create", "--snapshot", "s", "--memory", "512"], { dir })).toBe(
    "ERR_SNAPSHOT_FIXED",
  );
  expect(await errorCode(["create", "--snapshot", "none"], { dir })).toBe(
    "ERR_VM_SNAPSHOT_NOT_FOUND",
  );
  expect(await errorCode(["create", "--snapshot", "s", "--runtime", "base"], { dir })).toBe(
    "ERR_VALIDATION_FLAGS",
  );
  const file = join(dir, "out.tar");
  await vmsanOk(["snapshot", "export", "s", "-o", file], { dir });
  expect((await stat(file)).mode & 0o077).toBe(0);
  const imported = await vmsanJson<{ snapshotId: string }>(
    ["snapshot", "import", "-i", file, "--name", "t"],
    { dir },
  );
  await rm(file);
  const { snapshotId } = imported;
  const place = join(dir, "snapshots", snapshotId);
  const document = join(place, "snapshot.json");
  const text = readFileSync(document, "utf8");
  const restart = async (): Promise<void> => void (await vmsan(["daemon", "stop"], { dir }));
  for (const [from, to] of [
    [/"vmm": "[^"]+"/, '"vmm": "QEMU 1.0"'],
    [/"cpu": "[^"]+"/, '"cpu": "another"'],
  ] as const) {
    await writeFile(document, text.replace(from, to));
    await restart();
    expect(await errorCode(["create", "--snapshot", "t"], { dir })).toBe(
      "ERR_SNAPSHOT_INCOMPATIBLE",
    );
  }
  await writeFile(document, text);
  const state = readFileSync(join(place, "state"));
  state[1000] = (state[1000] ?? 0) ^ 1;
  await writeFile(join(place, "state"), state);
  await restart();
  expect(await errorCode(["create", "--snapshot", "t"], { dir })).toBe("ERR_SNAPSHOT_DAMAGED");
  // The disk is whole: a VM boots from it.
  await vmsanJson(["create", "--snapshot", "t", "--cold", "--name", "cold"], { dir });
  expect(await sh("cold", LOOK_AT_DISK)).toBe("200000000");
  await vmsanOk(["rm", "-f", "cold", "a"], { dir });
  await vmsanOk(["snapshot", "prune", "--all"], { dir });
  expect(existsSync(place)).toBe(false);
  expect(await tree(join(dir, "snapshots"))).toEqual([]);
  expect(strayProcesses(dir)).toEqual([]);
  expect((await readFile(join(dir, "run/daemon.log"), "utf8")).match(/ error .*/g) ?? []).toEqual(
    expect.not.arrayContaining([expect.stringContaining("unhandled")]),
  );
});
