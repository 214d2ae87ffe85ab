/**
 * Daemon, VMM or file server is killed at random moments of a life with a shared directory and a volume
 * that are written all the time: what was written whole is there on the host, the volume's file system is
 * clean, nothing is left. Only with VMSAN_TEST_MOUNT_KILLS=N, the number of kills.
 */
import { execFileSync } from "node:child_process";
import { mkdir, readFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import type { Vm } from "../../src/client/vm.ts";
import { layoutOf } from "../../src/util/paths.ts";
import { findLeftovers } from "../../src/vmm/leftovers.ts";
import { installation, temporary } from "../fixtures/ladder.ts";
import { processesOf, strayProcesses } from "./support.ts";

const KILLS = Number(process.env["VMSAN_TEST_MOUNT_KILLS"] ?? 0);
if (KILLS === 0) {
  process.stderr.write(
    "mount-kills: left out, since each kill is followed by a boot; VMSAN_TEST_MOUNT_KILLS=100 runs it\n",
  );
}
const LIMIT_MS = 600_000 + KILLS * 90_000;

/** Writes files aside and renames them, on the share and on the volume; one that slept goes on beside the next. */
const WRITER = `i=0; while :; do i=$((i+1)); for d in /work /data; do
  head -c 20000 /dev/zero | tr '\\0' x >$d/.part-$$ && mv $d/.part-$$ $d/whole-$((i % 40)); done; done`;

describe.runIf(KILLS > 0)(`${KILLS} kills of what serves mounts`, () => {
  const here = installation("base");
  const work = temporary();
  const kill = (pid: number | undefined): void => {
    try {
      if (pid !== undefined) process.kill(pid, "SIGKILL");
    } catch {
      // ESRCH: it has ended by itself.
    }
  };

  test(
    "leave nothing but what was written",
    async () => {
      const share = join(work.path, "share");
      await mkdir(share);
      const mounts = [`${share}:/work`, "data:/data"];
      const vm: Vm = await here.vmsan.create({ memory: 128, mounts });
      const dir = join(layoutOf(here.dir).vms, vm.id);
      const victims = {
        daemon: async () => kill((await here.vmsan.daemon.info())?.pid),
        vmm: async () => kill((await vm.refresh()).pid),
        "file server": async () => kill((await findLeftovers(dir, "shares.json"))[0]?.pid),
      };
      const states: Record<string, number> = {};
      for (let kills = 0; kills < KILLS; kills += 1) {
        const { status } = await vm.refresh();
        states[status] = (states[status] ?? 0) + 1;
        if (status === "stopped") await vm.start();
        if (status === "suspended") await vm.resume();
        await vm.exec(["sh", "-c", `(${WRITER}) >/dev/null 2>&1 & true`], { user: "root" });
        const ways = [
          async (): Promise<void> => await vm.suspend(),
          async (): Promise<void> => await vm.stop(0),
          async (): Promise<void> => await sleep(2000),
        ];
        const way = ways[kills % ways.length];
        const [name, strike] = Object.entries(victims)[Math.floor(kills / 3) % 3] ?? [];
        // The call may fail with whom it was made of.
        const done = way?.().catch(() => undefined);
        await sleep(Math.random() * 2000);
        await strike?.();
        await done;
        // Whatever it is now, the next command finds it.
        await expect
          .poll(async () => (await vm.refresh()).status, { timeout: 120_000 })
          .toMatch(/^(running|stopped|suspended)$/);
        for (const file of await readdir(share)) {
          if (file.startsWith(".part")) continue;
          expect((await readFile(join(share, file))).length, `${name}: ${file}`).toBe(20_000);
        }
      }
      process.stderr.write(`mount-kills: ${JSON.stringify(states)}\n`);
      await vm.remove();
      await expect.poll(() => strayProcesses(here.dir), { timeout: 60_000 }).toEqual([]);
      expect(processesOf(dir)).toEqual([]);
      expect(await readdir(layoutOf(here.dir).vms)).toEqual([]);
      const disk = join(here.dir, "volumes", "data", "volume.ext4");
      // The journal is played back first, as a mount does; then there must be nothing to mend.
      execFileSync("/sbin/e2fsck", ["-p", "-E", "journal_only", disk]);
      execFileSync("/sbin/e2fsck", ["-fn", disk]);
    },
    LIMIT_MS,
  );
});
