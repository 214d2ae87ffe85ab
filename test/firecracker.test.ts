/**
 * The Firecracker driver against the stand-in: the driver contract, isolation as /proc shows it,
 * limits, and a fault at every step. With VMSAN_FIRECRACKER and VMSAN_JAILER the contract runs on
 * the real ones in test/e2e/drivers.test.ts.
 */
import { execFileSync, spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { assembleInitramfs } from "../src/boot/initramfs.ts";
import type { VmSpec } from "../src/model/vm.ts";
import { findCgroups } from "../src/vmm/cgroup.ts";
import { driverContract } from "../src/vmm/contract.ts";
import { FirecrackerApi } from "../src/vmm/firecracker/api.ts";
import { FirecrackerDriver } from "../src/vmm/firecracker/driver.ts";
import { FirecrackerVm } from "../src/vmm/firecracker/vm.ts";
import { uidClaims } from "../src/vmm/uids.ts";
import {
  buildGo,
  buildStandin,
  whyNoStandin,
  withFaults,
  type Faults,
} from "./firecracker-support.ts";

const dir = mkdtempSync(join(tmpdir(), "vmsan-fc-"));
const built = join(dir, "bin");
const stateDir = join(dir, "state");
const unusable = whyNoStandin();
if (unusable !== undefined) console.log(`skipped: Firecracker's stand-in: ${unusable}`);

afterAll(() => rmSync(dir, { recursive: true, force: true }));
beforeAll(async () => {
  if (unusable !== undefined) return;
  buildStandin(built);
  const agent = join(dir, "agent");
  buildGo(resolve(import.meta.dirname, "../guest"), "./cmd/agent", agent);
  await assembleInitramfs({ agent, modules: [], output: join(dir, "initramfs.cpio") });
  writeFileSync(join(dir, "vmlinux"), "\u007fELF and nothing else: the stand-in looks no further");
}, 180_000);

const kvm = async () => ({ usable: true, reason: "The stand-in needs none." });
const makeDriver = (binDir = built) => new FirecrackerDriver({ stateDir, binDir, kvm });

let counter = 0;
/** A VM with two small disks. */
function makeSpec(): VmSpec {
  counter += 1;
  const id = `vm-${(0xfc000000 + (process.pid % 0xffff) * 256 + counter).toString(16)}`;
  const home = join(dir, id);
  mkdirSync(home, { mode: 0o700 });
  for (const name of ["base.img", "upper.img"]) {
    writeFileSync(join(home, name), "");
    truncateSync(join(home, name), 1 << 20);
  }
  return {
    id,
    dir: home,
    vcpus: 1,
    memMib: 128,
    kernel: join(dir, "vmlinux"),
    initramfs: join(dir, "initramfs.cpio"),
    kernelArgs: [],
    disks: [
      { role: "base", path: join(home, "base.img"), readonly: true },
      { role: "upper", path: join(home, "upper.img"), readonly: false },
    ],
    isolation: { seccomp: true, pidNamespace: true, cgroup: true, networkNamespace: true },
  };
}

/** What is left of a VM that should be gone: files beside its disks, groups, ids, processes. */
async function leftovers(spec: VmSpec): Promise<string[]> {
  const keep = ["base.img", "upper.img", "console.log"];
  const files = readdirSync(spec.dir).filter((name) => !keep.includes(name));
  const mounts = await findCgroups();
  const groups = [...Object.values(mounts.v1), ...(mounts.v2 ? [mounts.v2.path] : [])]
    .map((mount) => join(mount, "vmsan", spec.id))
    .filter((path) => existsSync(path));
  const claims = await uidClaims(join(stateDir, "uids"));
  const uids = claims.some(({ vm }) => vm === spec.id) ? ["uid"] : [];
  const processes = readdirSync("/proc").filter((pid) => {
    if (!/^\d+$/.test(pid)) return false;
    try {
      return readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0").includes(spec.id);
    } catch {
      // ENOENT, ESRCH: it has ended meanwhile.
      return false;
    }
  });
  return [...files, ...groups, ...uids, ...processes];
}

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

  describe("faults: a typed error, nothing left, the next start works", () => {
    const steps = [
      "start",
      "GET /",
      "PUT /metrics",
      "PUT /machine-config",
      "PUT /boot-source",
      "PUT /drives/disk0",
      "PUT /vsock",
      "PUT /balloon",
      "PUT /entropy",
      "PUT /actions",
    ];
    /** Start, expect the error, look for leftovers. */
    const failing = async (driver: FirecrackerDriver, spec: VmSpec): Promise<string> => {
      const error = await driver.start(spec, AbortSignal.timeout(30_000)).then(
        async (vm) => {
          await vm.kill();
          throw new Error("it started");
        },
        (caught: unknown) => caught,
      );
      const report = JSON.parse(JSON.stringify(error)) as {
        code: string;
        why?: string;
        fix?: string;
      };
      expect(report.why, JSON.stringify(error)).toBeTruthy();
      expect(report.fix).toBeTruthy();
      expect(await leftovers(spec)).toEqual([]);
      return report.code;
    };
    const faulty = (name: string, faults: Faults, startTimeoutMs = 1500) =>
      new FirecrackerDriver({
        stateDir,
        kvm,
        startTimeoutMs,
        binDir: withFaults(built, join(dir, name), faults),
      });

    test.each(steps)("a crash at %s", async (step) => {
      const code = await failing(
        faulty(`crash-${steps.indexOf(step)}`, { crashAt: step }),
        makeSpec(),
      );
      expect(code).toBe("ERR_VMM_START");
    });

    test.each(["start", "GET /"])("hanging at %s", async (step) => {
      const code = await failing(
        faulty(`hang-${steps.indexOf(step)}`, { hangAt: step }),
        makeSpec(),
      );
      expect(code).toBe("ERR_VMM_API_TIMEOUT");
    });

    test("hanging at any other call ends by that call's time limit or by an abort", async () => {
      const spec = makeSpec();
      const driver = faulty("hang-vsock", { hangAt: "PUT /vsock" });
      const stop = new AbortController();
      const starting = driver.start(spec, stop.signal);
      const log = join(spec.dir, "jail", "firecracker", spec.id, "root", "run", "api.sock");
      while (!existsSync(log)) await new Promise((done) => setTimeout(done, 10));
      stop.abort(new Error("enough"));
      await expect(starting).rejects.toThrow("enough");
      expect(await leftovers(spec)).toEqual([]);
      const api = new FirecrackerApi(join(dir, "nobody.sock"));
      await expect(api.call({ method: "GET", path: "/" })).rejects.toMatchObject({
        code: "ERR_VMM_API",
      });
    });

    test("a refusal carries the call, the status and the reason", async () => {
      const spec = makeSpec();
      const driver = faulty("refuse", { refuseAt: "PUT /boot-source" });
      await expect(driver.start(spec, AbortSignal.timeout(30_000))).rejects.toMatchObject({
        code: "ERR_VMM_API",
        why: "The stand-in was told to refuse this.",
        details: { call: "PUT /boot-source", status: 400 },
      });
      expect(await leftovers(spec)).toEqual([]);
    });

    test("a program that is missing, too old, or something else", async () => {
      const spec = makeSpec();
      const cases: [string, string][] = [
        [join(dir, "nowhere", "firecracker"), "There is no"],
        [
          join(withFaults(built, join(dir, "old"), { version: "1.9.1" }), "firecracker"),
          "1.10.0 or later",
        ],
        ["/bin/true", "does not say that it is Firecracker"],
      ];
      for (const [firecracker, why] of cases) {
        const driver = new FirecrackerDriver({ stateDir, firecracker, kvm });
        const probe = await driver.probe();
        expect(probe).toMatchObject({ usable: false });
        expect(probe.reason).toContain(why);
        expect(await failing(driver, spec)).toBe("ERR_DRIVER_UNUSABLE");
      }
    });

    test("a jail left over by a crash does not stop the next start", async () => {
      const spec = makeSpec();
      const root = join(spec.dir, "jail", "firecracker", spec.id, "root");
      mkdirSync(join(root, "run"), { recursive: true });
      writeFileSync(join(root, "firecracker.pid"), "1");
      writeFileSync(join(root, "run", "api.sock"), "");
      const driver = makeDriver();
      const vm = await driver.start(spec, AbortSignal.timeout(30_000));
      await vm.kill();
      await driver.cleanup(spec);
      expect(await leftovers(spec)).toEqual([]);
    });

    test("a Firecracker that nobody remembers is found by its jail", async () => {
      const spec = makeSpec();
      const vm = await makeDriver().start(spec, AbortSignal.timeout(30_000));
      const report = await makeDriver().cleanup(spec);
      expect(report.removed).toContain(`process ${vm.process.pid}`);
      await vm.exited;
      expect(await leftovers(spec)).toEqual([]);
    });

    test("user ids used up", async () => {
      const spec = makeSpec();
      const uids = { first: 1_999_999_000, count: 1 };
      const driver = new FirecrackerDriver({ stateDir, binDir: built, kvm, uids });
      const vm = await driver.start(spec, AbortSignal.timeout(30_000));
      const second = makeSpec();
      expect(await failing(driver, second)).toBe("ERR_VMM_UIDS");
      await vm.kill();
      await driver.cleanup(spec);
      const again = await driver.start(second, AbortSignal.timeout(30_000));
      expect(again.isolation.uid).toBe(uids.first);
      await again.kill();
      await driver.cleanup(second);
    });

    test("a kernel that is none: refused by Firecracker, nothing left", async () => {
      const kernel = join(dir, "not-a-kernel");
      writeFileSync(kernel, "text");
      expect(await failing(makeDriver(), { ...makeSpec(), kernel })).toBe("ERR_VMM_API");
    });

    test("a missing disk, and a full disk", async () => {
      const spec = makeSpec();
      rmSync(join(spec.dir, "upper.img"));
      expect(await failing(makeDriver(), spec)).toBe("ERR_VMM_START");
      const small = join(dir, "small");
      mkdirSync(small);
      execFileSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", small]);
      try {
        const full = makeSpec();
        const home = join(small, full.id);
        mkdirSync(home);
        const code = await failing(makeDriver(), { ...full, dir: home, disks: [] });
        expect(code).toBe("ERR_VMM_JAIL");
      } finally {
        execFileSync("umount", [small]);
      }
    });

    test("a snapshot that is damaged ends the process; nothing is left", async () => {
      const spec = makeSpec();
      const files = { state: join(dir, "bad.state"), memory: join(dir, "bad.memory") };
      writeFileSync(files.state, "rubbish");
      writeFileSync(files.memory, "");
      const driver = makeDriver();
      const signal = AbortSignal.timeout(30_000);
      await expect(driver.restore(spec, files, signal)).rejects.toMatchObject({
        code: "ERR_VMM_START",
        details: { call: "PUT /snapshot/load" },
      });
      expect(await leftovers(spec)).toEqual([]);
    });
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
