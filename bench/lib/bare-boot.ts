/** What QEMU itself needs to boot the kernel, with the disks of a VM and an init that prints one line. */
import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { cpioType, encodeCpio } from "../../src/boot/cpio.ts";
import { hostArch, type Kernel } from "../../src/boot/kernel.ts";
import { createEmptyDisk } from "../../src/ext4/empty.ts";
import type { VmSpec } from "../../src/model/vm.ts";
import { qemuArguments, qemuFiles } from "../../src/vmm/qemu/command.ts";
import { measured } from "./bench.ts";
import { processTreeCpu } from "./measure.ts";

const LINE = "floor: the first program runs";

/** The first program of the guest; it stays, because its end is a panic. */
const INIT = `package main
import ("os"; "time")
func main() { os.Stdout.WriteString("${LINE}\\n"); for { time.Sleep(time.Hour) } }
`;

/** An initramfs with nothing but that program. @param dir for files in between */
export function floorInitramfs(dir: string): string {
  const source = join(dir, "floor");
  mkdirSync(source, { recursive: true });
  writeFileSync(join(source, "main.go"), INIT);
  const init = join(source, "init");
  execFileSync("go", ["build", "-trimpath", "-ldflags", "-s -w", "-o", init, "main.go"], {
    cwd: source,
    env: { ...process.env, CGO_ENABLED: "0", GO111MODULE: "off" },
  });
  const path = join(dir, "floor.cpio");
  writeFileSync(
    path,
    encodeCpio([
      { name: "dev", mode: cpioType.directory | 0o755 },
      { name: "dev/console", mode: cpioType.charDevice | 0o600, device: { major: 5, minor: 1 } },
      { name: "init", mode: cpioType.file | 0o755, data: readFileSync(init) },
    ]),
  );
  return path;
}

/** Time stamp counter in kHz, as the driver finds it. */
function tscKhz(): number {
  return Math.round(
    Number(/^bogomips\s*:\s*([\d.]+)/m.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[1]) * 500,
  );
}

/** Boot until the line has come. @returns wall time since QEMU's start and processor time, in milliseconds */
export async function bareBoot(
  dir: string,
  given: { kernel: Kernel; initramfs: string; base: string; memMib: number },
): Promise<{ ms: number; cpuMs: number }> {
  mkdirSync(dir, { recursive: true });
  const upper = join(dir, "upper.ext4");
  await createEmptyDisk(upper, { sizeBytes: 10 * 2 ** 30, journal: true });
  const { kernel, initramfs, base, memMib } = given;
  const spec: VmSpec = {
    id: "vm-00000000",
    dir,
    vcpus: 1,
    memMib,
    kernel: kernel.vmlinux,
    initramfs,
    kernelArgs: [],
    disks: [
      { role: "base", path: base, readonly: true },
      { role: "upper", path: upper, readonly: false },
      ...(kernel.modulesDisk === undefined
        ? []
        : [{ role: "modules" as const, path: kernel.modulesDisk, readonly: true }]),
    ],
    isolation: { seccomp: false, pidNamespace: false, cgroup: false, networkNamespace: false },
  };
  const arch = hostArch();
  const args = qemuArguments(spec, { arch, accelerator: "tcg", tscKhz: tscKhz() });
  const from = performance.now();
  const child = spawn(`qemu-system-${arch}`, args, {
    cwd: dir,
    stdio: ["ignore", "ignore", "inherit"],
  });
  measured(child);
  const closed = new Promise((resolve) => child.once("close", resolve));
  const console = join(dir, qemuFiles.console);
  try {
    for (;;) {
      let text = "";
      try {
        text = readFileSync(console, "latin1");
      } catch {
        // ENOENT: QEMU has not opened it yet.
      }
      if (text.includes(LINE)) break;
      if (child.exitCode !== null) throw new Error(`QEMU has ended: ${text.slice(-2000)}`);
      await sleep(3);
    }
    return { ms: performance.now() - from, cpuMs: processTreeCpu(child.pid ?? 0) };
  } finally {
    child.kill("SIGKILL");
    await closed;
  }
}
