/**
 * The driver contract on VMs that really boot: QEMU by software emulation with Debian's
 * kernel, and Firecracker when there is a real one (VMSAN_FIRECRACKER, VMSAN_JAILER, and
 * VMSAN_KERNEL for another kernel, VMSAN_BOOT_TIMEOUT for a slow KVM, VMSAN_KVM=assume). test/firecracker/firecracker.test.ts runs the same suite on a stand-in.
 */
import { mkdtempSync, readFileSync, readlinkSync, rmSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { ensureInitramfs } from "../../../src/boot/initramfs.ts";
import { addKernel, ensureKernel, type Kernel } from "../../../src/boot/kernel.ts";
import { createEmptyDisk } from "../../../src/ext4/empty.ts";
import type { VmSpec } from "../../../src/model/vm.ts";
import { agentBinary } from "../../../src/util/package.ts";
import { layoutOf } from "../../../src/util/paths.ts";
import { driverContract } from "../../../src/vmm/contract.ts";
import { FirecrackerDriver, assumedKvm } from "../../../src/vmm/firecracker/driver.ts";
import { QemuDriver } from "../../../src/vmm/qemu/driver.ts";
import { preparedDir } from "../support.ts";

const dir = mkdtempSync(join(tmpdir(), "vmsan-drivers-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

let counter = 0;
const layout = layoutOf(preparedDir);

/** A VM of two empty disks: the agent, which brings all that it needs, is all there is in it. */
async function makeSpec(): Promise<VmSpec> {
  const given = process.env["VMSAN_KERNEL"];
  const kernel: Kernel =
    given === undefined
      ? await ensureKernel({ dir: layout.kernels })
      : await addKernel({ dir: join(dir, "kernels"), file: given });
  const initramfs = await ensureInitramfs({ dir: layout.initramfs, agent: agentBinary(), kernel });
  counter += 1;
  const id = `vm-${process.pid.toString(16).padStart(6, "0")}${counter.toString(16).padStart(2, "0")}`;
  const home = join(dir, id);
  await mkdir(home, { mode: 0o700 });
  const [base, upper] = [join(home, "base.ext4"), join(home, "upper.ext4")];
  for (const [index, path] of [base, upper].entries()) {
    const uuid = `00000000-0000-4000-8000-00000000000${index}`;
    await createEmptyDisk(path, { sizeBytes: 64 << 20, uuid, journal: index === 1 });
  }
  return {
    id,
    dir: home,
    vcpus: 1,
    memMib: 128,
    kernel: kernel.vmlinux,
    initramfs,
    kernelArgs: [],
    disks: [
      { role: "base", path: base, readonly: true },
      { role: "upper", path: upper, readonly: false },
    ],
    isolation: { seccomp: true, pidNamespace: true, cgroup: true, networkNamespace: true },
  };
}

const realFirecracker = process.env["VMSAN_FIRECRACKER"];
if (realFirecracker === undefined) {
  console.log("skipped: a real Firecracker: VMSAN_FIRECRACKER and VMSAN_JAILER are not set");
} else {
  const jailer = process.env["VMSAN_JAILER"];
  driverContract(
    "firecracker",
    () =>
      new FirecrackerDriver({
        stateDir: join(dir, "state"),
        firecracker: realFirecracker,
        // A KVM that is judged wrongly, or too slow to be tried.
        ...(process.env["VMSAN_KVM"] === "assume" ? { kvm: async () => assumedKvm } : {}),
        ...(jailer === undefined ? {} : { jailer }),
      }),
    makeSpec,
  );
}

test("QEMU: each switch changes exactly what it says, as /proc shows", async () => {
  const driver = new QemuDriver({ stateDir: join(dir, "state") });
  const all = { seccomp: true, pidNamespace: true, cgroup: true, networkNamespace: true };
  for (const off of [undefined, "seccomp", "cgroup", "networkNamespace"] as const) {
    const made = await makeSpec();
    const spec = { ...made, isolation: off === undefined ? all : { ...all, [off]: false } };
    const vm = await driver.start(spec, AbortSignal.timeout(60_000));
    try {
      const { pid } = vm.process;
      const status = readFileSync(`/proc/${pid}/status`, "utf8");
      const cannot = vm.isolation.notEnforced.join("; ");
      const seen = {
        seccomp: /^Seccomp:\s*2$/m.test(status),
        cgroup:
          readFileSync(`/proc/${pid}/cgroup`, "utf8").includes(`/vmsan/${spec.id}`) ||
          (off !== "cgroup" && cannot.includes("limit")),
        networkNamespace:
          readlinkSync(`/proc/${pid}/ns/net`) !== readlinkSync("/proc/self/ns/net") ||
          (off !== "networkNamespace" && cannot.includes("network namespace")),
      };
      const { pidNamespace: _none, ...expected } =
        off === undefined ? all : { ...all, [off]: false };
      expect({ off, ...seen }).toEqual({ off, ...expected });
      expect(/^NoNewPrivs:\s*1$/m.test(status)).toBe(true);
      if (process.geteuid?.() === 0 && !cannot.includes("own user id")) {
        expect(vm.isolation.uid).toBeGreaterThan(1000);
        expect(/^CapEff:\s*0+$/m.test(status)).toBe(true);
      }
    } finally {
      await vm.kill();
      expect((await driver.cleanup(spec)).failed).toEqual([]);
    }
  }
});

driverContract("qemu", () => new QemuDriver({ stateDir: join(dir, "state") }), makeSpec);
