/** Builds the stand-in for Firecracker and its jailer, with or without planned faults; VMs for it. */
import { execFileSync, spawnSync } from "node:child_process";
import {
  appendFileSync,
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll } from "vitest";
import { assembleInitramfs } from "../../src/boot/initramfs.ts";
import type { VmSpec } from "../../src/model/vm.ts";
import { findCgroups } from "../../src/vmm/cgroup.ts";
import { FirecrackerDriver } from "../../src/vmm/firecracker/driver.ts";
import { uidClaims } from "../../src/vmm/uids.ts";

const source = resolve(import.meta.dirname, "standin");

/** Faults of the stand-in: what cmd/firecracker/main.go reads from the end of its own file. */
export interface Faults {
  version?: string;
  /** A request such as `PUT /vsock`, or `start`. */
  crashAt?: string;
  hangAt?: string;
  refuseAt?: string;
  bootMs?: number;
}

/** Why the stand-in cannot be used here; undefined when it can. */
export function whyNoStandin(): string | undefined {
  if (process.geteuid?.() !== 0) return "the jailer needs root";
  try {
    execFileSync("go", ["version"], { stdio: "ignore" });
    execFileSync("unshare", ["--mount", "--net", "--pid", "--fork", "true"], { stdio: "ignore" });
    return undefined;
  } catch {
    // No Go, or a container that makes no namespaces.
    return "it needs Go and the right to make namespaces";
  }
}

/** Compile a Go program of this repository statically. */
export function buildGo(
  dir: string,
  target: string,
  output: string,
  env: Record<string, string> = {},
): void {
  execFileSync("go", ["build", "-trimpath", "-buildvcs=false", "-o", output, target], {
    cwd: dir,
    env: { ...process.env, CGO_ENABLED: "0", GOFLAGS: "", GOTOOLCHAIN: "local", ...env },
    stdio: ["ignore", "ignore", "inherit"],
  });
}

/** Compile both stand-ins into `dir`. */
export function buildStandin(dir: string): void {
  mkdirSync(dir, { recursive: true });
  buildGo(source, "./cmd/...", `${dir}/`);
}

/** Programs and kernel of a real Firecracker, when the environment names them. */
export interface RealFirecracker {
  firecracker: string;
  jailer?: string;
  kernel?: string;
}

/** What VMSAN_FIRECRACKER, VMSAN_JAILER and VMSAN_KERNEL name; undefined without the first. */
export function realFirecracker(): RealFirecracker | undefined {
  const { VMSAN_FIRECRACKER: firecracker, VMSAN_JAILER, VMSAN_KERNEL } = process.env;
  if (firecracker === undefined) return undefined;
  return {
    firecracker: resolve(firecracker),
    ...(VMSAN_JAILER === undefined ? {} : { jailer: resolve(VMSAN_JAILER) }),
    ...(VMSAN_KERNEL === undefined ? {} : { kernel: resolve(VMSAN_KERNEL) }),
  };
}

/** Put a Firecracker and its jailer into a VMSAN_DIR's bin: the real ones, else the stand-ins. */
export function installFirecracker(bin: string): void {
  const real = realFirecracker();
  if (real === undefined) {
    buildStandin(bin);
    return;
  }
  mkdirSync(bin, { recursive: true });
  symlinkSync(real.firecracker, join(bin, "firecracker"));
  if (real.jailer !== undefined) symlinkSync(real.jailer, join(bin, "jailer"));
}

/** Why guests of the stand-in can have no network here; undefined when they can. */
export function whyNoStandinNetwork(): string | undefined {
  const as = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];
  const result = spawnSync("setpriv", [...as, "unshare", "--user", "--net", "true"]);
  return result.status === 0 ? undefined : "an unprivileged user may not make namespaces";
}

/** A copy of both stand-ins whose Firecracker has these faults. */
export function withFaults(built: string, dir: string, faults: Faults): string {
  mkdirSync(dir, { recursive: true });
  for (const name of ["firecracker", "jailer"]) {
    copyFileSync(join(built, name), join(dir, name));
    chmodSync(join(dir, name), 0o755);
  }
  appendFileSync(join(dir, "firecracker"), `\nSTANDIN-FAULTS:${JSON.stringify(faults)}`);
  return dir;
}

/** A directory with the stand-in, and what makes VMs for it. */
export interface StandinHost {
  dir: string;
  /** Directory of both programs. */
  built: string;
  stateDir: string;
  kvm: () => Promise<{ usable: boolean; reason: string }>;
  makeDriver: (binDir?: string) => FirecrackerDriver;
  /** A VM with two small disks. */
  makeSpec: () => VmSpec;
  /** What is left of a VM that should be gone: files beside its disks, groups, ids, processes. */
  leftovers: (spec: VmSpec) => Promise<string[]>;
}

/** Declares that the stand-in is built before a file's tests, in a directory of its own. */
export function standinHost(): StandinHost {
  const dir = mkdtempSync(join(tmpdir(), "vmsan-fc-"));
  const built = join(dir, "bin");
  const stateDir = join(dir, "state");
  const unusable = whyNoStandin();
  afterAll(() => rmSync(dir, { recursive: true, force: true }));
  beforeAll(async () => {
    if (unusable !== undefined) return;
    buildStandin(built);
    const agent = join(dir, "agent");
    buildGo(resolve(import.meta.dirname, "../../guest"), "./cmd/agent", agent);
    await assembleInitramfs({ agent, modules: [], output: join(dir, "initramfs.cpio") });
    writeFileSync(
      join(dir, "vmlinux"),
      "\u007fELF and nothing else: the stand-in looks no further",
    );
  }, 180_000);
  const kvm = async () => ({ usable: true, reason: "The stand-in needs none." });
  const makeDriver = (binDir = built) => new FirecrackerDriver({ stateDir, binDir, kvm });
  let counter = 0;
  const makeSpec = (): VmSpec => {
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
  };
  const leftovers = async (spec: VmSpec): Promise<string[]> => {
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
  };
  return { dir, built, stateDir, kvm, makeDriver, makeSpec, leftovers };
}
