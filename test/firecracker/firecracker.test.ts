/**
 * The Firecracker driver against the stand-in: the driver contract, isolation as /proc shows it,
 * limits. Faults: firecracker-faults.test.ts. With VMSAN_FIRECRACKER and VMSAN_JAILER the contract
 * runs on the real ones in test/e2e/host/drivers.test.ts.
 */
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, readdirSync, readlinkSync, statSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { findCgroups } from "../../src/vmm/cgroup.ts";
import { driverContract } from "../../src/vmm/contract.ts";
import { FirecrackerVm } from "../../src/vmm/firecracker/vm.ts";
import { standinHost, whyNoStandin, withFaults } from "./support.ts";

const unusable = whyNoStandin();
if (unusable !== undefined) console.log(`skipped: Firecracker's stand-in: ${unusable}`);
const { dir, built, makeDriver, makeSpec, leftovers } = standinHost();

describe.skipIf(unusable !== undefined)("firecracker (stand-in)", () => {
  driverContract("firecracker on the stand-in", makeDriver, makeSpec, { bootMs: 20_000 });

  test("each switch changes exactly what it says, as /proc shows", async () => {
    const driver = makeDriver();
    const all = { seccomp: true, pidNamespace: true, cgroup: true, networkNamespace: true };
    for (const off of [
      undefined,
      "seccomp",
      "pidNamespace",
      "cgroup",
      "networkNamespace",
    ] as const) {
      const spec = { ...makeSpec(), isolation: off === undefined ? all : { ...all, [off]: false } };
      const vm = await driver.start(spec, AbortSignal.timeout(30_000));
      try {
        const { pid } = vm.process;
        const status = readFileSync(`/proc/${pid}/status`, "utf8");
        const seen = {
          seccomp: /^Seccomp:\s*2$/m.test(status),
          pidNamespace: /^NSpid:\s*\d+\s+\d+$/m.test(status),
          cgroup: readFileSync(`/proc/${pid}/cgroup`, "utf8").includes(`/vmsan/${spec.id}`),
          networkNamespace:
            readlinkSync(`/proc/${pid}/ns/net`) !== readlinkSync("/proc/self/ns/net"),
        };
        const expected = off === undefined ? all : { ...all, [off]: false };
        expect({ off, ...seen }).toEqual({ off, ...expected });
        const uid = Number(/^Uid:\s*(\d+)/m.exec(status)?.[1]);
        expect(uid).toBeGreaterThan(1000);
        expect(statSync(`/proc/${pid}/root/`).ino).not.toBe(statSync("/").ino);
        expect(vm.isolation).toMatchObject({
          mode: "jailer",
          uid,
          seccomp: seen.seccomp,
          pidNamespace: seen.pidNamespace,
          networkNamespace: seen.networkNamespace,
        });
        expect(vm.isolation.cgroup !== undefined).toBe(seen.cgroup);
      } finally {
        await vm.kill();
        await driver.cleanup(spec);
      }
      expect(await leftovers(spec)).toEqual([]);
    }
  });

  test("two VMs have different users; disks are links, not copies, and given to the user", async () => {
    const driver = makeDriver();
    const specs = [makeSpec(), makeSpec()];
    const vms = [];
    for (const spec of specs) vms.push(await driver.start(spec, AbortSignal.timeout(30_000)));
    expect(new Set(vms.map((vm) => vm.isolation.uid)).size).toBe(2);
    for (const [index, spec] of specs.entries()) {
      const root = join(spec.dir, "jail", "firecracker", spec.id, "root");
      const [base, upper] = spec.disks.map((disk) => statSync(disk.path));
      expect(statSync(join(root, "disk0")).ino).toBe(base?.ino);
      expect(statSync(join(root, "disk1")).ino).toBe(upper?.ino);
      expect(statSync(join(root, "vmlinux")).ino).toBe(statSync(spec.kernel).ino);
      expect(upper?.uid).toBe(vms[index]?.isolation.uid);
      expect(base?.uid).toBe(0);
    }
    for (const [index, spec] of specs.entries()) {
      await vms[index]?.kill();
      await driver.cleanup(spec);
    }
  });

  test("balloon: refused until the guest is up, then it answers", async () => {
    const spec = makeSpec();
    const driver = makeDriver(withFaults(built, join(dir, "slow"), { bootMs: 700 }));
    const vm = await driver.start(spec, AbortSignal.timeout(30_000));
    try {
      if (!(vm instanceof FirecrackerVm)) throw new Error("not a Firecracker VM");
      await expect(vm.api.balloonStatistics()).rejects.toMatchObject({ code: "ERR_VMM_API" });
      (await vm.connect(AbortSignal.timeout(20_000))).destroy();
      await vm.api.setBalloon(32);
      expect((await vm.api.balloonStatistics()).actual_mib).toBe(32);
    } finally {
      await vm.kill();
      await driver.cleanup(spec);
    }
  });

  test("limits: pids, memory and processor time hold for whatever runs in the VM's group", async () => {
    const spec = { ...makeSpec(), memMib: 64 };
    const driver = makeDriver();
    const vm = await driver.start(spec, AbortSignal.timeout(30_000));
    try {
      if (vm.isolation.notEnforced.length > 0) {
        console.log(`not enforced here: ${vm.isolation.notEnforced.join("; ")}`);
        return;
      }
      const mounts = await findCgroups();
      const dirs = new Set(
        (mounts.v2?.controllers.includes("memory") === true
          ? [mounts.v2.path]
          : Object.values(mounts.v1)
        ).map((mount) => join(mount, "vmsan", spec.id)),
      );
      // A hostile process in the same groups, so that none of the VMM's own code has to be.
      const join_ = [...dirs].map((group) => `echo $$ > ${group}/cgroup.procs`).join("; ");
      const hostile = (script: string) =>
        spawnSync("sh", ["-c", `${join_}; ${script}`], { timeout: 60_000, encoding: "utf8" });
      // tail keeps all that it has to print.
      const eater = hostile("head -c 1073741824 /dev/zero | tail -c 1073741824 | wc -c");
      expect(eater.stdout).not.toContain("1073741824");
      const fork = hostile("for i in $(seq 200); do sleep 5 & done; echo all");
      expect(fork.stdout).not.toContain("all");
      // On a busy machine a group may never reach its quota: it is read back from the kernel.
      const quotas = [...dirs]
        .flatMap((group) => [join(group, "cpu.max"), join(group, "cpu.cfs_quota_us")])
        .filter((file) => existsSync(file))
        .map((file) => readFileSync(file, "utf8").trim().split(" ")[0]);
      expect(quotas).toEqual(["125000"]);
    } finally {
      for (const pid of groupProcesses(spec.id)) {
        if (pid !== vm.process.pid) spawnSync("kill", ["-9", String(pid)]);
      }
      await vm.kill();
      await driver.cleanup(spec);
    }
    expect(await leftovers(spec)).toEqual([]);
  });
});

/** Processes of a VM's control groups. */
function groupProcesses(id: string): number[] {
  const found = readdirSync("/proc").filter((pid) => {
    if (!/^\d+$/.test(pid)) return false;
    try {
      return readFileSync(`/proc/${pid}/cgroup`, "utf8").includes(`/vmsan/${id}`);
    } catch {
      // ENOENT, ESRCH: it has ended meanwhile.
      return false;
    }
  });
  return found.map(Number);
}
