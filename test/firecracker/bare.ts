/**
 * A program for test/firecracker/rootless.test.ts, run as an unprivileged user: starts a VM on the
 * stand-in without the jailer, looks at its process, ends it, and prints what it saw as JSON.
 *
 * node test/firecracker/bare.ts DIRECTORY   one with bin/, initramfs.cpio, vmlinux; writable VM home
 */
import {
  existsSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  readdirSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import type { VmSpec } from "../../src/model/vm.ts";
import { FirecrackerDriver } from "../../src/vmm/firecracker/driver.ts";

const [given = "", home = ""] = process.argv.slice(2);
const kvm = async () => await Promise.resolve({ usable: true, reason: "The stand-in needs none." });
const driver = new FirecrackerDriver({
  stateDir: join(home, "state"),
  binDir: join(given, "bin"),
  kvm,
});
const spec: VmSpec = {
  id: "vm-fc0bare0",
  dir: join(home, "vm"),
  vcpus: 1,
  memMib: 128,
  kernel: join(home, "vmlinux"),
  initramfs: join(home, "initramfs.cpio"),
  kernelArgs: [],
  disks: [{ role: "upper", path: join(home, "upper.img"), readonly: false }],
  isolation: { seccomp: true, pidNamespace: true, cgroup: true, networkNamespace: true },
};
mkdirSync(spec.dir, { mode: 0o700 });
writeFileSync(join(home, "upper.img"), Buffer.alloc(1 << 20));

const probe = await driver.probe();
const vm = await driver.start(spec, AbortSignal.timeout(60_000));
const { pid } = vm.process;
const status = readFileSync(`/proc/${pid}/status`, "utf8");
const field = (name: string): string =>
  new RegExp(`^${name}:\\s*(.*)$`, "m").exec(status)?.[1]?.trim() ?? "";
const differs = (name: string): boolean =>
  readlinkSync(`/proc/${pid}/ns/${name}`) !== readlinkSync(`/proc/self/ns/${name}`);
const seen = {
  noNewPrivileges: field("NoNewPrivs") === "1",
  seccomp: field("Seccomp") === "2",
  network: differs("net"),
  user: differs("user"),
  links: readFileSync(`/proc/${pid}/net/dev`, "utf8")
    .split("\n")
    .slice(2)
    .map((line) => line.split(":")[0]?.trim() ?? "")
    .filter((name) => name !== ""),
};
(await vm.connect(AbortSignal.timeout(30_000))).destroy();
const adopted = await driver.adopt(spec, vm.process);
(await adopted?.connect(AbortSignal.timeout(30_000)))?.destroy();
await vm.kill();
const report = await driver.cleanup(spec);
const refused = await driver
  .start(
    { ...spec, isolation: { ...spec.isolation, pidNamespace: false } },
    AbortSignal.timeout(9000),
  )
  .then(
    () => "started",
    (error: unknown) => (error as { code?: string }).code,
  );
process.stdout.write(
  JSON.stringify({
    uid: process.geteuid?.(),
    probe: probe.usable,
    isolation: vm.isolation,
    seen,
    adopted: adopted !== undefined,
    failed: report.failed,
    refused,
    alive: existsSync(`/proc/${pid}`),
    left: readdirSync(spec.dir).filter((name) => name !== "console.log"),
  }),
);
