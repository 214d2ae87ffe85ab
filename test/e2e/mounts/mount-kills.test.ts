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
import type { Vm } from "../../../src/client/vm.ts";
import { layoutOf } from "../../../src/util/paths.ts";
import { installation, temporary } from "../../fixtures/ladder.ts";
import { strayProcesses } from "../support.ts";
import { victimsOf } from "./victims.ts";

const KILLS = Number(process.env["VMSAN_TEST_MOUNT_KILLS"] ?? 0);
if (KILLS === 0) {
  process.stderr.write(
    "mount-kills: left out, since each kill is followed by a boot; VMSAN_TEST_MOUNT_KILLS=100 runs it\n",
  );
}
/** What is done with a VM while something is killed, by name. */
type Ways = Record<string, () => Promise<unknown>>;
const LIMIT_MS = 600_000 + KILLS * 90_000;

/**
 * Writes files aside and renames them, on the share and on the volume; one that slept goes on beside the
 * next, and a clone's beside its source's, whose host name is another one.
 */
const WRITER = `i=0; while :; do i=$((i+1)); read h </proc/sys/kernel/hostname; for d in /work /data; do
  head -c 20000 /dev/zero | tr '\\0' x >$d/.part-$h-$$ && mv $d/.part-$h-$$ $d/whole-$((i % 40)); done; done`;

describe.runIf(KILLS > 0)(`${KILLS} kills of what serves mounts`, () => {
  const here = installation("base");
  const work = temporary();
  /** Kill something `count` times in ways of using a VM, which writes to a share all the time. */
  async function strike(vm: Vm, share: string, ways: Ways, count: number): Promise<void> {
    const victims = victimsOf(here, vm);
    const states: Record<string, number> = {};
    for (let kills = 0; kills < count; kills += 1) {
      const { status } = await vm.refresh();
      states[status] = (states[status] ?? 0) + 1;
      if (status === "stopped") await vm.start();
      if (status === "suspended") await vm.resume();
      await vm.exec(["sh", "-c", `(${WRITER}) >/dev/null 2>&1 & true`], { user: "root" });
      const [what, way] = Object.entries(ways)[kills % Object.keys(ways).length] ?? [];
      const [name, hit] = Object.entries(victims)[Math.floor(Math.random() * 3)] ?? [];
      // The call may fail with whom it was made of.
      const done = way?.().catch(() => undefined);
      await sleep(Math.random() * 3000);
      await hit?.();
      await done;
      // Whatever it is now, the next command finds it.
      await expect
        .poll(async () => (await vm.refresh()).status, { timeout: 120_000 })
        .toMatch(/^(running|stopped|suspended)$/);
      for (const other of await here.vmsan.list()) {
        if (other.id !== vm.id) await (await here.vmsan.get(other.id)).remove();
      }
      for (const file of await readdir(share)) {
        if (file.startsWith(".part")) continue;
        await expect
          .poll(async () => (await readFile(join(share, file))).length, {
            timeout: 60_000,
            message: `${what}, ${name} killed: ${file}`,
          })
          .toBe(20_000);
      }
    }
    process.stderr.write(`mount-kills: ${JSON.stringify(states)}\n`);
  }

  test(
    "leave nothing but what was written",
    async () => {
      const share = join(work.path, "share");
      await mkdir(share);
      const mounts = [`${share}:/work`, "data:/data"];
      const first = await here.vmsan.create({ memory: 128, mounts });
      const start = `(${WRITER}) >/dev/null 2>&1 & true`;
      await first.exec(["sh", "-c", start], { user: "root" });
      await first.snapshot({ name: "then" });
      const common = (vm: Vm): Ways => ({
        suspend: async () => await vm.suspend(),
        stop: async () => await vm.stop(0),
        nothing: async () => await sleep(2000),
        fork: async () => await here.vmsan.fork(vm.id),
      });
      const half = Math.ceil(KILLS / 2);
      const snapshot = async (): Promise<unknown> =>
        await here.vmsan.snapshots.remove((await first.snapshot()).id);
      await strike(first, share, { ...common(first), snapshot }, half);
      await first.remove();
      const [clone] = await here.vmsan.clone("then");
      if (clone === undefined) throw new Error("no clone");
      const restore = async (): Promise<void> => await clone.restore("then");
      await strike(clone, share, { ...common(clone), restore }, KILLS - half);
      await clone.remove();
      await expect.poll(() => strayProcesses(here.dir), { timeout: 60_000 }).toEqual([]);
      expect(await readdir(layoutOf(here.dir).vms)).toEqual([]);
      const snapshots = (await here.vmsan.snapshots.list()).map(({ id }) => id);
      expect((await readdir(join(here.dir, "snapshots"))).toSorted()).toEqual(snapshots.toSorted());
      const disk = join(here.dir, "volumes", "data", "volume.ext4");
      // The journal is played back first, as a mount does; then there must be nothing to mend.
      execFileSync("/sbin/e2fsck", ["-p", "-E", "journal_only", disk]);
      execFileSync("/sbin/e2fsck", ["-fn", disk]);
    },
    LIMIT_MS,
  );
});
