/**
 * An aarch64 guest by software emulation: Debian's arm64 kernel, the agent cross-built, the
 * machine `virt`. Only with VMSAN_TEST_AARCH64=1: it needs the package qemu-system-arm, Go, and a
 * Debian mirror for the kernel.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, test } from "vitest";
import { ensureInitramfs } from "../../../src/boot/initramfs.ts";
import { ensureKernel, type Kernel } from "../../../src/boot/kernel.ts";
import { createEmptyDisk } from "../../../src/ext4/empty.ts";
import type { VmSpec } from "../../../src/model/vm.ts";
import { driverContract } from "../../../src/vmm/contract.ts";
import { QemuDriver } from "../../../src/vmm/qemu/driver.ts";
import { buildGo } from "../../firecracker/support.ts";

const wanted = process.env["VMSAN_TEST_AARCH64"] === "1";
const dir = wanted ? mkdtempSync(join(tmpdir(), "vmsan-aarch64-")) : "";
let files: { kernel: Kernel; initramfs: string } | undefined;
let counter = 0;

/** Kernel and initramfs, once. */
async function bootFiles(): Promise<{ kernel: Kernel; initramfs: string }> {
  if (files !== undefined) return files;
  const agent = join(dir, "agent");
  buildGo(resolve(import.meta.dirname, "../../../guest"), "./cmd/agent", agent, {
    GOARCH: "arm64",
  });
  const kernel = await ensureKernel({ dir: join(dir, "kernels"), arch: "aarch64" });
  const initramfs = await ensureInitramfs({ dir: join(dir, "initramfs"), agent, kernel });
  files = { kernel, initramfs };
  return files;
}

/** A VM of two empty disks. */
async function makeSpec(): Promise<VmSpec> {
  const { kernel, initramfs } = await bootFiles();
  counter += 1;
  const id = `vm-aa${counter.toString(16).padStart(6, "0")}`;
  const home = join(dir, id);
  await mkdir(home, { mode: 0o700 });
  const [base, upper] = [join(home, "base.ext4"), join(home, "upper.ext4")];
  await createEmptyDisk(base, { sizeBytes: 64 << 20, journal: false });
  await createEmptyDisk(upper, { sizeBytes: 64 << 20, journal: true });
  return {
    id,
    dir: home,
    vcpus: 1,
    memMib: 256,
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

if (wanted) {
  afterAll(() => rmSync(dir, { recursive: true, force: true }));
  driverContract(
    "qemu for aarch64",
    () => new QemuDriver({ stateDir: join(dir, "state"), accelerator: "tcg", arch: "aarch64" }),
    makeSpec,
    { bootMs: 120_000 },
  );
} else {
  test.skip("aarch64 guests: VMSAN_TEST_AARCH64 is not 1", () => undefined);
}
