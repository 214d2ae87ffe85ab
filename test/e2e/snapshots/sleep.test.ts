/** VMs that sleep and wake, and roll back, in a guest that really runs. */
import { readFileSync, writeFileSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import { once } from "node:events";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test, vi } from "vitest";
import type { VmRecord } from "../../../src/model/vm.ts";
import { booted, installation } from "../../fixtures/ladder.ts";
import { ownPort } from "../../fixtures/ports.ts";
import { strayProcesses, vmsan } from "../support.ts";

/** Twenty with VMSAN_TEST_SCALE=2. */
const CYCLES = Math.ceil(10 * Number(process.env["VMSAN_TEST_SCALE"] ?? 1));
const LIMIT_MS = 600_000 + CYCLES * 30_000;
/** How long the command's client waits for a VM that does not answer; one that sleeps is another matter. */
const PATIENCE_MS = 15_000;
const SERVER = `perl -MIO::Socket::INET -e '
  my $s = IO::Socket::INET->new(Listen => 5, LocalAddr => "0.0.0.0", LocalPort => 7000) or die;
  while (1) { my $c = $s->accept or next; print $c "here"; close $c }'`;

/** Keeps connections and says no more. */
const KEEPER = `perl -MIO::Socket::INET -e '
  my $s = IO::Socket::INET->new(Listen => 5, LocalAddr => "0.0.0.0", LocalPort => 7001) or die;
  while (my $c = $s->accept) { syswrite $c, "kept"; push @c, $c }'`;

const here = installation("base");
const ports = [`${ownPort}:7000`, `${ownPort + 1}:7001`];
const box = booted(here, { name: "s", memory: 256, ports });

const sh = async (script: string): Promise<string> => {
  const { exitCode, stdout, stderr } = await box.vm.exec(["sh", "-c", script], { user: "root" });
  expect({ exitCode, stderr: stderr.toString() }).toEqual({ exitCode: 0, stderr: "" });
  return stdout.toString().trim();
};
const status = async (): Promise<string> => (await box.vm.refresh()).status;
const endDaemon = async (): Promise<unknown> => await vmsan(["daemon", "stop"], { dir: here.dir });

/** What the guest's server says to a connection from outside. */
async function ask(): Promise<string> {
  const socket = connect(ownPort, "127.0.0.1");
  let said = "";
  for await (const chunk of socket) said += String(chunk);
  return said;
}

test(
  `streams and ports of a VM that sleeps and wakes ${CYCLES} times`,
  async () => {
    const server = box.vm.spawn(["sh", "-c", SERVER], { detach: true });
    server.exit.catch(() => undefined);
    // Until it listens, connections are cut.
    await expect
      .poll(async () => await ask().catch(() => ""), { timeout: LIMIT_MS / 4 })
      .toBe("here");
    // A command with somebody attached: not a line is lost or doubled.
    let lines = "";
    const count = "i=0; while [ ! -e /tmp/enough ]; do i=$((i+1)); echo $i; sleep 0.02; done";
    const counting = box.vm.spawn(
      ["sh", "-c", count],
      {},
      { onStdout: (chunk) => void (lines += chunk.toString()), reconnectMs: PATIENCE_MS },
    );
    await counting.started;
    for (let cycle = 0; cycle < CYCLES; cycle += 1) {
      const before = lines.length;
      await expect.poll(() => lines.length, { timeout: LIMIT_MS / 4 }).toBeGreaterThan(before);
      await box.vm.suspend();
      expect(await status()).toBe("suspended");
      expect(strayProcesses(here.dir).filter((line) => line.includes("qemu-system"))).toEqual([]);
      // Once for longer than a connection that breaks is waited for.
      if (cycle === 0) await sleep(PATIENCE_MS + 1000);
      await box.vm.resume();
    }
    await sh("touch /tmp/enough");
    expect((await counting.exit).exitCode).toBe(0);
    const numbers = lines.trim().split("\n");
    expect(numbers).toEqual(numbers.map((_, index) => String(index + 1)));

    // Whoever needs it wakes it, also with another daemon.
    await box.vm.suspend();
    await endDaemon();
    expect(await status()).toBe("suspended");
    expect(await ask()).toBe("here");
    expect(await status()).toBe("running");
  },
  LIMIT_MS,
);

/** All files of the guest by path, kind, mode, owner, size and time; what the agent writes anew left out. */
const FILES = String.raw`find /etc /opt /root /srv /usr/bin /var ! -path '/etc/host*' ! -path /etc/machine-id ! -path /etc/resolv.conf ! -path /etc -printf '%p %y %m %u %s %T@
' | sort | sha256sum`;

test(
  "a VM that goes back has exactly the files and the memory that it had then",
  async () => {
    await sh(
      "mkdir -p /srv/dir; echo old >/srv/file; echo old >/dev/shm/file; ln -s file /srv/link",
    );
    const keeper = box.vm.spawn(["sh", "-c", KEEPER], { detach: true });
    keeper.exit.catch(() => undefined);
    /** A connection that the guest has accepted; undefined until it listens. */
    const keep = async (): Promise<Socket | undefined> => {
      const socket = connect(ownPort + 1, "127.0.0.1");
      const said = await once(socket, "data").catch(() => undefined);
      return said === undefined ? undefined : socket;
    };
    let kept: Socket | undefined;
    await expect.poll(async () => (kept = await keep()), { timeout: LIMIT_MS / 4 }).toBeDefined();
    const ended = vi.fn<() => void>();
    kept?.on("error", () => undefined).on("close", ended);
    const files = await sh(FILES);
    await box.vm.snapshot({ name: "then" });
    await sh(
      "echo new >/srv/file; rm /dev/shm/file /srv/link; rmdir /srv/dir; echo more >/srv/more; rm /bin/uname; sync",
    );
    expect(await sh(FILES)).not.toBe(files);
    await box.vm.suspend();
    expect(ended).not.toHaveBeenCalled();
    await box.vm.restore("then");
    // The guest has no such connection any more, and whoever only reads is told.
    await expect.poll(() => ended.mock.calls.length, { timeout: LIMIT_MS / 4 }).toBe(1);
    expect(await sh(FILES)).toBe(files);
    expect(await sh("cat /srv/link /dev/shm/file; hostname; uname")).toBe("old\nold\ns\nLinux");
    expect(await ask()).toBe("here");
  },
  LIMIT_MS,
);

test(
  "memory that was damaged while the VM slept is refused; its disk boots",
  async () => {
    await sh("echo kept >/srv/file; sync");
    await box.vm.suspend();
    const dir = join(here.dir, "vms", box.id);
    const { suspended } = JSON.parse(readFileSync(join(dir, "vm.json"), "utf8")) as VmRecord;
    const path = join(dir, suspended?.dir ?? "", "state");
    const state = readFileSync(path);
    for (const damaged of [Buffer.from(state).fill(1, 1000, 1001), state.subarray(0, -1)]) {
      writeFileSync(path, damaged);
      await expect(box.vm.resume()).rejects.toMatchObject({
        code: "ERR_SNAPSHOT_DAMAGED",
        fix: expect.stringContaining(`vmsan stop ${box.id}`) as string,
      });
      expect(await status()).toBe("suspended");
    }
    await box.vm.stop();
    await box.vm.start();
    expect(await sh("cat /srv/file")).toBe("kept");
    expect((await readdir(dir)).filter((name) => name.startsWith("memory"))).toEqual([]);
    await box.vm.remove();
    await here.vmsan.snapshots.remove("then");
    expect(await readdir(join(here.dir, "vms"))).toEqual([]);
    expect(strayProcesses(here.dir)).toEqual([]);
  },
  LIMIT_MS,
);
