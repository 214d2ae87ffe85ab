/**
 * Boot times and memory of guests by kernel, each with the disk of its modules and without: from the start of
 * QEMU until the agent's echo.
 *
 * node bench/boot.ts [--runs N] [KERNEL…]   kernels of the store by id; default: all of them
 */
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { loadavg } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { ensureInitramfs } from "../src/boot/initramfs.ts";
import {
  ensureKernel,
  ensureModulesDisk,
  hostArch,
  listKernels,
  type Kernel,
} from "../src/boot/kernel.ts";
import { createEmptyDisk } from "../src/ext4/empty.ts";
import type { VmSpec } from "../src/model/vm.ts";
import { agentBinary } from "../src/util/package.ts";
import { layoutOf, vmsanDir } from "../src/util/paths.ts";
import type { RunningVm } from "../src/vmm/driver.ts";
import { QemuDriver } from "../src/vmm/qemu/driver.ts";
import { bench } from "./lib/bench.ts";
import { median, processCpu } from "./lib/measure.ts";

const { values, positionals } = parseArgs({
  options: { runs: { type: "string", default: "5" } },
  allowPositionals: true,
});
const layout = layoutOf(vmsanDir());

/** A VM of two empty disks, and that of the kernel's modules if it is asked for. */
async function makeSpec(
  dir: string,
  kernel: Kernel,
  modules: string[],
  index: number,
): Promise<VmSpec> {
  const initramfs = await ensureInitramfs({ dir: layout.initramfs, agent: agentBinary(), kernel });
  const id = `vm-be${index.toString(16).padStart(6, "0")}`;
  const home = join(dir, id);
  const [base, upper] = [join(home, "base"), join(home, "upper")];
  await mkdir(home, { mode: 0o700 });
  await createEmptyDisk(base, { sizeBytes: 64 << 20, journal: false });
  await createEmptyDisk(upper, { sizeBytes: 64 << 20, journal: true });
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
      ...modules.map((path) => ({ role: "modules" as const, path, readonly: true })),
    ],
    isolation: { seccomp: true, pidNamespace: true, cgroup: true, networkNamespace: true },
  };
}

/** Wait for the agent's echo of a RESET. */
async function echo(vm: RunningVm): Promise<void> {
  const signal = AbortSignal.timeout(60_000);
  const stream = await vm.connect(signal);
  const token = randomBytes(32);
  await new Promise<void>((resolve, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason as Error), { once: true });
    // An interrupted measurement kills the VM under it.
    stream.on("error", reject);
    let seen = Buffer.alloc(0);
    stream.on("data", (chunk: Buffer) => {
      seen = Buffer.concat([seen, chunk]);
      if (seen.includes(token)) resolve();
    });
    stream.write(Buffer.concat([Buffer.from("VMSAN-CHANNEL-1\n"), token]));
  });
  stream.destroy();
}

await bench("boot", async ({ dir, defer }) => {
  const driver = new QemuDriver({ stateDir: join(dir, "state") });
  let running: RunningVm | undefined;
  defer(async () => await running?.kill());
  await ensureKernel({ dir: layout.kernels });
  const kernels = (await listKernels(layout.kernels)).filter(
    (kernel) =>
      kernel.arch === hostArch() && (positionals.length === 0 || positionals.includes(kernel.id)),
  );
  const probe = await driver.probe();
  console.log(
    `${probe.accelerator}, load ${loadavg()
      .map((value) => value.toFixed(1))
      .join(" ")}`,
  );
  let index = 0;
  const seen = [];
  for (const kernel of kernels) {
    const { modulesDisk } = await ensureModulesDisk(kernel, { dir: layout.kernels });
    const variants = modulesDisk === undefined ? [[]] : [[], [modulesDisk]];
    const figures = () => ({ times: [] as number[], cpu: [] as number[], memory: [] as number[] });
    seen.push(...variants.map((modules) => ({ kernel, modules, ...figures() })));
  }
  // By turns, so that what else the host does burdens all alike.
  for (let run = 0; run < Number(values.runs); run++) {
    for (const { kernel, modules, times, cpu, memory } of seen) {
      const spec = await makeSpec(dir, kernel, modules, (index += 1));
      const from = performance.now();
      const vm = await driver.start(spec, AbortSignal.timeout(60_000));
      running = vm;
      await echo(vm);
      times.push(performance.now() - from);
      cpu.push(processCpu(vm.process.pid));
      const status = readFileSync(`/proc/${vm.process.pid}/status`, "utf8");
      memory.push(Number(/^VmRSS:\s*(\d+)/m.exec(status)?.[1]) / 1024);
      await vm.kill();
      running = undefined;
      await driver.cleanup(spec);
    }
  }
  for (const { kernel, modules, times, cpu, memory } of seen) {
    const line = { median: median(times), least: Math.min(...times), rss: median(memory) };
    console.log(
      `${kernel.id}: agent answers after ${line.median.toFixed(0)} ms (least ${line.least.toFixed(0)}) and ${median(cpu).toFixed(0)} ms of CPU, ${line.rss.toFixed(0)} MiB resident, ${kernel.modules.length} modules, ${modules.length === 0 ? "without" : "with"} a disk of all`,
    );
  }
});
