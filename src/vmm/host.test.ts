/** What drivers share: choice, user ids, control groups, boxes, logs, isolation. */
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import type { DriverName } from "../model/vm.ts";
import { createCgroup, findCgroups, parseMountinfo, removeCgroup } from "./cgroup.ts";
import { chooseDriver } from "./choose.ts";
import { cutLog, cutPlaced } from "./console-log.ts";
import type { Driver, DriverProbe } from "./driver.ts";
import { checkIsolation } from "./isolation.ts";
import { boxed } from "./launch.ts";
import { sweepHost } from "./sweep.ts";
import { claimUid, defaultUidRange, releaseUids, uidClaims } from "./uids.ts";

const dir = mkdtempSync(join(tmpdir(), "vmsan-host-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** A driver of which only the probe is asked. */
function driver(name: DriverName, probe: DriverProbe): Driver {
  const never = async () => await Promise.reject(new Error("not asked for"));
  return {
    name,
    capabilities: {
      snapshots: false,
      diffSnapshots: false,
      diskLayers: false,
      diskGrowth: false,
      multipleStreams: false,
      isolation: [],
    },
    probe: async () => await Promise.resolve(probe),
    start: never,
    restore: never,
    machine: never,
    adopt: never,
    cleanup: never,
    consolePath: () => "",
  };
}

describe("choice of driver", () => {
  const firecracker = driver("firecracker", {
    usable: true,
    accelerator: "kvm",
    reason: "KVM works.",
  });
  const noFirecracker = driver("firecracker", {
    usable: false,
    accelerator: "none",
    reason: "No KVM.",
    fix: "Get one.",
  });
  const qemu = driver("qemu", { usable: true, accelerator: "tcg", reason: "Emulation." });
  const noQemu = driver("qemu", {
    usable: false,
    accelerator: "none",
    reason: "No QEMU.",
    fix: "Install it.",
  });
  const fake = driver("fake", { usable: true, accelerator: "none", reason: "Fake." });

  test("auto prefers Firecracker, falls back with the reason, never takes the fake", async () => {
    expect((await chooseDriver("auto", [fake, qemu, firecracker])).driver.name).toBe("firecracker");
    const choice = await chooseDriver("auto", [fake, qemu, noFirecracker]);
    expect(choice).toMatchObject({
      accelerator: "tcg",
      reason: "Not firecracker: No KVM. Emulation.",
    });
    await expect(chooseDriver("auto", [fake, noQemu, noFirecracker])).rejects.toMatchObject({
      code: "ERR_DRIVER_UNUSABLE",
      why: "firecracker: No KVM. qemu: No QEMU.",
      fix: "Install it.",
    });
  });

  test("a name is taken or refused, never replaced", async () => {
    expect((await chooseDriver("fake", [fake])).driver.name).toBe("fake");
    await expect(chooseDriver("firecracker", [noFirecracker, qemu])).rejects.toMatchObject({
      code: "ERR_DRIVER_UNUSABLE",
      why: "No KVM.",
      fix: "Get one.",
    });
    await expect(chooseDriver("firecracker", [qemu])).rejects.toMatchObject({
      code: "ERR_DRIVER_UNKNOWN",
    });
  });

  test("a caller who knows that KVM works is believed", async () => {
    const asked: (object | undefined)[] = [];
    const knowing: Driver = {
      ...firecracker,
      probe: async (wishes) => {
        asked.push(wishes);
        return await firecracker.probe();
      },
    };
    await chooseDriver("firecracker", [knowing], { assumeKvm: true });
    await chooseDriver("auto", [knowing], { assumeKvm: true });
    await chooseDriver("auto", [knowing]);
    expect(asked).toEqual([{ assumeKvm: true }, { assumeKvm: true }, {}]);
  });

  test("a switch that the driver does not have is refused", () => {
    const on = { seccomp: true, pidNamespace: true, cgroup: true, networkNamespace: true };
    expect(() => checkIsolation(qemu, on, true)).not.toThrow();
    const noPids = { ...on, pidNamespace: false };
    expect(() => checkIsolation(qemu, noPids, true)).toThrow(/--no-pid-ns/);
    // The card is in that namespace: without it there is none, and nothing to filter it by.
    const noNet = { ...on, networkNamespace: false };
    const able = { name: "able", capabilities: { isolation: ["networkNamespace"] as const } };
    expect(() => checkIsolation(able, noNet, false)).not.toThrow();
    expect(() => checkIsolation(able, noNet, true)).toThrow(/--no-netns for a VM with a network/);
  });
});

describe("user ids", () => {
  test("one a VM, kept, given back, used up", async () => {
    const claims = join(dir, "uids");
    const range = { first: 100, count: 2 };
    expect(await claimUid(claims, range, "a")).toBe(100);
    expect(await claimUid(claims, range, "b")).toBe(101);
    expect(await claimUid(claims, range, "a")).toBe(100);
    await expect(claimUid(claims, range, "c")).rejects.toMatchObject({ code: "ERR_VMM_UIDS" });
    await releaseUids(claims, "a");
    await releaseUids(claims, "a");
    expect(await claimUid(claims, range, "c")).toBe(100);
    expect((await uidClaims(claims)).map(({ vm }) => vm).sort()).toEqual(["b", "c"]);
    expect(await uidClaims(join(dir, "nowhere"))).toEqual([]);
  });

  test("the default range exists in this user namespace", () => {
    const whole = "         0          0 4294967295\n";
    expect(defaultUidRange(whole, whole)?.first).toBe(1_900_000_000);
    const container = "0 100000 65536\n";
    expect(defaultUidRange(container, container)).toEqual({ first: 50_000, count: 9_000 });
    expect(defaultUidRange("0 1000 1\n", "0 1000 1\n")).toBeUndefined();
  });
});

test("sweeping takes ids of this installation's unknown VMs and of vanished installations only", async () => {
  const uidDir = join(dir, "sweep", "uids");
  const [vmsDir, otherVms] = [join(dir, "sweep", "vms"), join(dir, "sweep", "other")];
  const range = { first: 100, count: 9 };
  mkdirSync(join(otherVms, "vm-others"), { recursive: true });
  await claimUid(uidDir, range, "vm-known", join(vmsDir, "vm-known"));
  await claimUid(uidDir, range, "vm-unknown", join(vmsDir, "vm-unknown"));
  await claimUid(uidDir, range, "vm-others", join(otherVms, "vm-others"));
  await claimUid(uidDir, range, "vm-vanished", join(dir, "sweep", "gone", "vm-vanished"));
  await claimUid(uidDir, range, "vm-old-format");
  const report = await sweepHost({ uidDir, vmsDir, isKnown: (id) => id === "vm-known" });
  expect(report.failed).toEqual([]);
  expect(report.removed.sort()).toEqual(["user id of vm-unknown", "user id of vm-vanished"]);
  expect((await uidClaims(uidDir)).map(({ vm }) => vm).sort()).toEqual([
    "vm-known",
    "vm-old-format",
    "vm-others",
  ]);
});

describe("control groups", () => {
  test("mounts are found in mountinfo", () => {
    const text =
      "30 25 0:26 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n31 25 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n32 1 8:1 / / rw - ext4 /dev/sda rw\n";
    expect(parseMountinfo(text).map((mount) => [mount.type, mount.path])).toEqual([
      ["cgroup", "/sys/fs/cgroup/memory"],
      ["cgroup2", "/sys/fs/cgroup/unified"],
    ]);
  });

  test("a host without any of it is told, not failed", async () => {
    const group = await createCgroup(
      "vm-x",
      { memoryBytes: 1 << 28, cpus: 1, pids: 10 },
      { v1: {} },
    );
    expect(group.dirs).toEqual([]);
    expect(group.notEnforced).toHaveLength(3);
  });

  test("limits are set and removed with the group", async (context) => {
    const mounts = await findCgroups();
    const id = `vm-test-${process.pid}`;
    const group = await createCgroup(id, { memoryBytes: 1 << 28, cpus: 1.5, pids: 10 }, mounts);
    if (group.notEnforced.length > 0) {
      await removeCgroup(id, mounts);
      context.skip(`not enforced here: ${group.notEnforced.join("; ")}`);
    }
    const values = group.dirs.flatMap((path) =>
      ["memory.max", "memory.limit_in_bytes", "cpu.max", "cpu.cfs_quota_us", "pids.max"]
        .map((file) => join(path, file))
        .filter((file) => existsSync(file))
        .map((file) => readFileSync(file, "utf8").trim()),
    );
    expect(values.sort()).toEqual(
      ["10", group.version === 2 ? "150000 100000" : "150000", String(1 << 28)].sort(),
    );
    expect((await removeCgroup(id, mounts)).failed).toEqual([]);
    expect(group.dirs.filter((path) => existsSync(path))).toEqual([]);
    expect((await removeCgroup(id, mounts)).removed).toEqual([]);
  });
});

test("boxes go around a program from the outside in, its arguments untouched", () => {
  const argv = ["qemu", "-append", "a b; $(c)"];
  const boxes = {
    cgroups: ["/g/1", "/g/2"],
    network: { path: "/n" },
    userNamespace: false,
    noNewPrivileges: true,
  } as const;
  const line = boxed(argv, boxes);
  expect(line.slice(-3)).toEqual(argv);
  expect(line.slice(3)).toEqual([
    "vmsan-cgroup",
    "/g/1",
    "/g/2",
    "--",
    "nsenter",
    "--net=/n",
    "--",
    "setpriv",
    "--no-new-privs",
    "--",
    ...argv,
  ]);
  const rootless = boxed(argv, { ...boxes, cgroups: [], network: { path: "/n", user: "/u" } });
  expect(rootless.slice(0, rootless.indexOf("qemu"))).toEqual([
    "nsenter",
    "--user=/u",
    "--preserve-credentials",
    "--net=/n",
    "--",
    "setpriv",
    "--bounding-set=-all",
    "--inh-caps=-all",
    "--no-new-privs",
    "--",
  ]);
  const none = {
    cgroups: [],
    network: "host",
    userNamespace: false,
    noNewPrivileges: false,
  } as const;
  expect(boxed(argv, none)).toEqual(argv);
  expect(boxed(argv, { ...none, network: "new", userNamespace: true })).toContain(
    "--map-current-user",
  );
});

test("a log that grows too large keeps its end", async () => {
  mkdirSync(join(dir, "log"));
  const path = join(dir, "log", "console.log");
  writeFileSync(path, `${"x".repeat(5000)}the end`);
  await cutLog(path, 10_000, 100);
  expect(statSync(path).size).toBe(5007);
  await cutLog(path, 1000, 100);
  const text = readFileSync(path, "utf8");
  expect(text).toMatch(/^\[.*older output dropped\]\n.*the end$/);
  expect(text.length).toBeLessThan(200);
  await cutLog(join(dir, "log", "nothing"), 1, 1);
});

test("a log whose writer keeps its own place occupies no more than its bound", async () => {
  const path = join(dir, "placed.log");
  const writer = openSync(path, "w");
  try {
    let written = 0;
    const write = (text: string): void => {
      written += writeSync(writer, text, written);
    };
    const max = 256 << 10;
    for (let round = 0; round < 40; round++) {
      write(`${String(round).padStart(65_535, ".")}\n`);
      await cutPlaced(path, max, 128 << 10);
      const { size, blocks } = statSync(path);
      expect(size).toBe(written);
      expect(blocks * 512).toBeLessThanOrEqual(max);
    }
    expect(readFileSync(path, "utf8").slice(-131_072)).toMatch(/^\.+38\n\.+39\n$/);
  } finally {
    closeSync(writer);
  }
  await cutPlaced(join(dir, "nothing"), 1, 1);
});
