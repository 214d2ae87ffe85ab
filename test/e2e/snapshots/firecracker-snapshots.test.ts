/**
 * Snapshots, clones, rollback and sleep with Firecracker, jailed: on the stand-in the guest comes back
 * fresh, so what is tested here is what the host does.
 */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { installFirecracker, realFirecracker, whyNoStandin } from "../../firecracker/support.ts";
import { installation } from "../../fixtures/ladder.ts";
import { strayProcesses } from "../support.ts";

const real = realFirecracker();
const unusable = real === undefined ? whyNoStandin() : undefined;
if (unusable !== undefined) console.log(`skipped: snapshots with Firecracker: ${unusable}`);
const here = installation("base");

/** Files below a directory that others than their owner may read. */
async function open(dir: string): Promise<string[]> {
  const found: string[] = [];
  for (const name of await readdir(dir, { recursive: true })) {
    const { mode } = await stat(join(dir, name));
    if ((mode & 0o077) !== 0) found.push(name);
  }
  return found;
}

test.skipIf(unusable !== undefined)(
  "a jailed VM is cloned, taken back, put to sleep and woken; its memory stays its owner's",
  async () => {
    if (real === undefined) vi.stubEnv("VMSAN_KVM", "assume");
    installFirecracker(join(here.dir, "bin"));
    const vm = await here.vmsan.create({
      driver: "firecracker",
      memory: 128,
      networkPolicy: "none",
      ...(real?.kernel === undefined ? {} : { kernel: real.kernel }),
    });
    const snapshot = await vm.snapshot({ name: "s" });
    const place = join(here.dir, "snapshots", snapshot.id);
    const clones = await here.vmsan.clone("s", { count: 3 });
    const forks = await here.vmsan.fork(vm.id, { count: 2 });
    await vm.suspend();
    expect(vm.view.status).toBe("suspended");
    expect(await open(join(here.dir, "vms", vm.id))).toEqual([]);
    await vm.resume();
    await vm.restore("s");
    expect(await open(place)).toEqual([]);
    const all = await here.vmsan.list();
    expect(all.map(({ status, driver }) => [status, driver])).toEqual(
      [vm, ...clones, ...forks].map(() => ["running", "firecracker"]),
    );
    for (const { id } of all) await here.vmsan.remove(id, { force: true });
    await here.vmsan.snapshots.remove("s");
    expect(await readdir(join(here.dir, "vms"))).toEqual([]);
    expect(await readdir(join(here.dir, "snapshots"))).toEqual([]);
    expect(strayProcesses(here.dir)).toEqual([]);
  },
  600_000,
);
