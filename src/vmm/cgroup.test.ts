/** Control groups of version 2 against a tree of plain files, for hosts that have version 1 only. */
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { VmSpec } from "../model/vm.ts";
import { cgroupProcesses, createCgroup, removeCgroup, type CgroupMounts } from "./cgroup.ts";
import { planCgroup } from "./firecracker/cgroup-plan.ts";
import { jailerArguments } from "./firecracker/config.ts";

let root = "";
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "vmsan-cgroup-"));
  mkdirSync(join(root, "v2"));
  mkdirSync(join(root, "v1"));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

const limits = { memoryBytes: 256 << 20, cpus: 2.25, pids: 40 };
const mounts = (controllers: string[], v1: Record<string, string> = {}): CgroupMounts => ({
  v2: { path: join(root, "v2"), controllers },
  v1,
});
const read = (...parts: string[]) => readFileSync(join(root, "v2", ...parts), "utf8");

const spec: VmSpec = {
  id: "vm-00000001",
  dir: "/vms/vm-00000001",
  vcpus: 2,
  memMib: 512,
  kernel: "/k",
  initramfs: "/i",
  kernelArgs: [],
  disks: [],
  isolation: { seccomp: true, pidNamespace: true, cgroup: true, networkNamespace: true },
};

describe("version 2", () => {
  test("controllers are enabled from the top down, then every limit is set", async () => {
    const group = await createCgroup("vm-a", limits, mounts(["cpu", "io", "memory", "pids"]));
    expect(group).toEqual({
      dirs: [join(root, "v2", "vmsan", "vm-a")],
      name: "/vmsan/vm-a",
      version: 2,
      notEnforced: [],
    });
    for (const level of ["", "vmsan"]) {
      expect(read(level, "cgroup.subtree_control").split(" ").sort()).toEqual([
        "+cpu",
        "+memory",
        "+pids",
      ]);
    }
    // The VM's own group has none: a group with processes may not hand controllers on.
    expect(existsSync(join(root, "v2", "vmsan", "vm-a", "cgroup.subtree_control"))).toBe(false);
    expect(read("vmsan", "vm-a", "memory.max")).toBe(String(256 << 20));
    expect(read("vmsan", "vm-a", "memory.oom.group")).toBe("1");
    expect(read("vmsan", "vm-a", "cpu.max")).toBe("225000 100000");
    expect(read("vmsan", "vm-a", "pids.max")).toBe("40");
  });

  test("without all controllers version 1 is used, and what it lacks is named", async () => {
    const group = await createCgroup(
      "vm-b",
      limits,
      mounts(["cpu", "io"], { memory: join(root, "v1"), pids: join(root, "v1") }),
    );
    expect(group.version).toBe(1);
    expect(group.notEnforced).toEqual([
      "cpu limit: no control group hierarchy of this host has it",
    ]);
    const value = readFileSync(join(root, "v1", "vmsan", "vm-b", "memory.limit_in_bytes"), "utf8");
    expect(value).toBe(String(256 << 20));
    expect(existsSync(join(root, "v2", "vmsan"))).toBe(false);
  });

  test("version 1: all VMs together weigh as many processes as there are processors", async () => {
    const v1 = { cpu: join(root, "v1"), memory: join(root, "v1"), pids: join(root, "v1") };
    const group = await createCgroup("vm-e", limits, { v1 });
    expect(group.notEnforced).toEqual([]);
    const value = readFileSync(join(root, "v1", "vmsan", "cpu.shares"), "utf8");
    expect(value).toBe(String(1024 * availableParallelism()));
  });

  test("a limit that the kernel refuses is named; the others hold", async () => {
    mkdirSync(join(root, "v2", "vmsan", "vm-c", "cpu.max"), { recursive: true });
    const group = await createCgroup("vm-c", limits, mounts(["cpu", "memory", "pids"]));
    expect(group.notEnforced).toHaveLength(1);
    expect(group.notEnforced[0]).toMatch(/^cpu limit: /);
    expect(read("vmsan", "vm-c", "pids.max")).toBe("40");
  });

  test("controllers that cannot be enabled: no group, and the reason", async () => {
    mkdirSync(join(root, "v2", "cgroup.subtree_control"));
    const group = await createCgroup("vm-d", limits, mounts(["cpu", "memory", "pids"]));
    expect(group.dirs).toEqual([]);
    expect(group.notEnforced[0]).toMatch(/^memory, cpu and pids limits: /);
  });

  test("processes are found and an empty group is removed", async () => {
    const own = mounts(["cpu", "memory", "pids"]);
    const dir = join(root, "v2", "vmsan", "vm-e");
    mkdirSync(dir, { recursive: true });
    expect(await removeCgroup("vm-none", own)).toEqual({ removed: [], failed: [] });
    writeFileSync(join(dir, "cgroup.procs"), "11\n22\n");
    expect(await cgroupProcesses("vm-e", own)).toEqual([11, 22]);
    // A plain file in it is what a kernel does not have: here it stands for a group in use.
    const report = await removeCgroup("vm-e", own);
    expect(report.removed).toEqual([]);
    expect(report.failed).toMatchObject([{ what: dir }]);
  });
});

describe("what the jailer is told", () => {
  test("version 2 with all controllers", async () => {
    const { cgroup, notEnforced } = await planCgroup(spec, mounts(["cpu", "memory", "pids"]));
    expect(notEnforced).toEqual([]);
    const line = jailerArguments(spec, {
      jailer: "/jailer",
      firecracker: "/firecracker",
      base: "/b",
      uid: 1,
      gid: 1,
      ...(cgroup === undefined ? {} : { cgroup }),
    });
    const at = line.indexOf("--cgroup-version");
    expect(line.slice(at, at + 4)).toEqual(["--cgroup-version", "2", "--parent-cgroup", "vmsan"]);
    expect(line.filter((_, index) => line[index - 1] === "--cgroup")).toEqual([
      `memory.max=${(512 + 64) << 20}`,
      "memory.oom.group=1",
      "cpu.max=225000 100000",
      "pids.max=34",
    ]);
  });

  test("switched off: nothing, and nothing is missing", async () => {
    const isolation = { ...spec.isolation, cgroup: false };
    const plan = await planCgroup({ ...spec, isolation }, mounts(["cpu", "memory", "pids"]));
    expect(plan).toEqual({ notEnforced: [] });
  });

  test.skipIf(process.geteuid?.() === 0)("a hierarchy that is read-only is left out", async () => {
    chmodSync(join(root, "v2"), 0o500);
    const plan = await planCgroup(spec, mounts(["cpu", "memory", "pids"]));
    expect(plan.cgroup).toBeUndefined();
    expect(plan.notEnforced).toHaveLength(3);
  });
});
