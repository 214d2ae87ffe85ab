/** Checks of what runs VMs: KVM, QEMU, Firecracker, tun, control groups, user namespaces. */
import { constants } from "node:fs";
import { access, open } from "node:fs/promises";
import { messageOf, errnoOf } from "../model/errors.ts";
import { run } from "../util/run.ts";
import { which } from "../util/which.ts";
import { findCgroups } from "../vmm/cgroup.ts";
import { probeKvm } from "../vmm/kvm.ts";
import type { Check, Finding } from "./check.ts";
import { readText } from "./checks-machine.ts";

/** QEMU's program for this machine. */
export const qemuProgram = process.arch === "arm64" ? "qemu-system-aarch64" : "qemu-system-x86_64";
/** Debian package that has it. */
export const qemuPackage = process.arch === "arm64" ? "qemu-system-arm" : "qemu-system-x86";

/** The first line that a program prints for --version; undefined when there is no such program. */
async function versionOf(name: string, signal: AbortSignal): Promise<string | undefined> {
  const path = await which(name);
  if (path === undefined) return undefined;
  const { stdout } = await run(path, ["--version"], { signal, timeoutMs: 10_000 });
  return `${stdout.split("\n")[0] ?? ""} (${path})`;
}

/** Why /dev/kvm cannot be opened. */
async function kvmDevice(): Promise<Finding | undefined> {
  try {
    await (await open("/dev/kvm", "r+")).close();
    return undefined;
  } catch (error) {
    const flags = /\b(vmx|svm)\b/.exec(await readText("/proc/cpuinfo"))?.[1];
    const none = process.arch === "x64" && flags === undefined;
    const fixes: Record<string, string> = {
      ENOENT: none
        ? "Switch virtualization on in the firmware, or nested virtualization in the outer VM."
        : "Load the module (modprobe kvm_intel or kvm_amd), or give the container /dev/kvm.",
      EACCES: 'Join the group that owns it: usermod -aG kvm "$USER", then log in again.',
      EPERM: "Give the container access to the device /dev/kvm.",
    };
    const fix = fixes[errnoOf(error) ?? ""];
    return {
      status: "warn",
      detail: `/dev/kvm cannot be opened (${errnoOf(error) ?? messageOf(error)}): VMs run by software emulation, several times slower.`,
      ...(fix === undefined ? {} : { fix }),
    };
  }
}

export const vmmChecks: readonly Check[] = [
  {
    name: "kvm",
    run: async ({ layout }) => {
      const refused = await kvmDevice();
      if (refused !== undefined) return refused;
      const qemu = await which(qemuProgram);
      if (qemu === undefined) {
        return {
          status: "skip",
          detail: "/dev/kvm opens; only a VM would show that it works, and QEMU is missing.",
        };
      }
      const probe = await probeKvm({ qemu, cacheDir: layout.probes });
      return {
        status: probe.usable ? "ok" : "warn",
        detail: probe.usable ? probe.reason : `${probe.reason} VMs run by software emulation.`,
        ...(probe.fix === undefined ? {} : { fix: probe.fix }),
      };
    },
  },
  {
    name: "qemu",
    run: async ({ signal }) => {
      const version = await versionOf(qemuProgram, signal);
      if (version !== undefined) return { status: "ok", detail: `${version}.` };
      const fix = `apt-get install --no-install-recommends ${qemuPackage}`;
      return { status: "fail", detail: `${qemuProgram} is not installed.`, fix };
    },
  },
  {
    name: "firecracker",
    run: async ({ signal }) => {
      const version = await versionOf("firecracker", signal);
      if (version === undefined) {
        return {
          status: "skip",
          detail: "Firecracker is not installed; QEMU runs the VMs.",
          fix: "For jailed VMs on KVM: put firecracker and jailer of one release (1.10 or newer) on PATH.",
        };
      }
      const jailer = await versionOf("jailer", signal);
      const number = (text: string): string => /v?(\d+\.\d+\.\d+)/.exec(text)?.[1] ?? "?";
      const [major = 0, minor = 0] = number(version).split(".").map(Number);
      if (major < 1 || (major === 1 && minor < 10)) {
        return { status: "warn", detail: `${version} is too old.`, fix: "Install 1.10 or newer." };
      }
      if (jailer === undefined) {
        return {
          status: "warn",
          detail: `${version}, but no jailer.`,
          fix: "Install the jailer of the same release.",
        };
      }
      if (number(jailer) !== number(version)) {
        return {
          status: "warn",
          detail: `${version}, but ${jailer}.`,
          fix: "Install both of one release.",
        };
      }
      return { status: "ok", detail: `${version} with its jailer.` };
    },
  },
  {
    name: "tun",
    run: async () => {
      try {
        await access("/dev/net/tun", constants.R_OK | constants.W_OK);
        return { status: "ok", detail: "/dev/net/tun can be opened." };
      } catch (error) {
        return {
          status: "warn",
          detail: `/dev/net/tun cannot be opened (${errnoOf(error) ?? messageOf(error)}): VMs have no network card.`,
          fix: "As root: mkdir -p /dev/net; mknod -m 666 /dev/net/tun c 10 200. Without it VMs have no network.",
        };
      }
    },
  },
  {
    name: "cgroups",
    run: async () => {
      const { v1, v2 } = await findCgroups();
      const wanted = ["memory", "cpu", "pids"];
      const inV2 = wanted.filter((name) => v2?.controllers.includes(name));
      if (inV2.length === wanted.length)
        return { status: "ok", detail: "Version 2 with memory, cpu and pids." };
      const missing = wanted.filter((name) => v1[name] === undefined && !inV2.includes(name));
      if (missing.length === 0)
        return { status: "ok", detail: "Version 1 with memory, cpu and pids." };
      return {
        status: "warn",
        detail: `No controller for ${missing.join(", ")}: VMs are not limited in that.`,
        fix: "Boot with systemd.unified_cgroup_hierarchy=1, or run the container with its own cgroup namespace.",
      };
    },
  },
  {
    name: "user-namespaces",
    run: async ({ signal }) => {
      const unshare = await which("unshare");
      if (unshare === undefined) return { status: "skip", detail: "No unshare(1) to try it with." };
      const tried = await run(unshare, ["--user", "--map-root-user", "true"], { signal });
      if (tried.code === 0) return { status: "ok", detail: "User namespaces can be made." };
      const restricted =
        (await readText("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")).trim() === "1";
      const root = process.getuid?.() === 0;
      return {
        status: root ? "skip" : "warn",
        detail: `User namespaces cannot be made: ${tried.stderr.trim() || `status ${tried.code}`}.`,
        fix: restricted
          ? "sysctl kernel.apparmor_restrict_unprivileged_userns=0"
          : "sysctl user.max_user_namespaces=10000 (Debian 10: kernel.unprivileged_userns_clone=1)",
      };
    },
  },
];
