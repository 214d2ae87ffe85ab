/** Whether QEMU can be used here, and how: its version, KVM or software emulation. */
import { hostArch, type KernelArch } from "../../boot/kernel.ts";
import { run } from "../../util/run.ts";
import type { DriverProbe } from "../driver.ts";
import { probeKvm } from "../kvm.ts";
import { findProgram } from "../launch.ts";

/** What {@link probeQemu} takes. */
export interface QemuProbeOptions {
  /** Directory of the cached judgement of KVM. */
  stateDir: string;
  /** Program; default `qemu-system-ARCH` from PATH. */
  binary?: string;
  /** Default: KVM if it works. */
  accelerator?: "kvm" | "tcg";
  /** Guests' processor; default this machine's. */
  arch?: KernelArch;
}

/** Oldest version with `-netdev stream`. */
const oldest = [7, 2] as const;

/** A QEMU that cannot be used. */
function unusable(reason: string, fix: string): { probe: DriverProbe; cpu: string } {
  return { probe: { usable: false, accelerator: "none", reason, fix }, cpu: "host" };
}

/**
 * Find the program, its version and an accelerator.
 * @returns what the driver says of itself, and the processor model that works with KVM here
 */
export async function probeQemu(
  options: QemuProbeOptions,
): Promise<{ probe: DriverProbe; cpu: string }> {
  const name = options.binary ?? `qemu-system-${options.arch ?? hostArch()}`;
  const binary = await findProgram(name);
  if (binary === undefined) {
    return unusable(
      `There is no ${name} in PATH.`,
      "Install the Debian package qemu-system-x86 (or qemu-system-arm on aarch64).",
    );
  }
  const shown = await run(binary, ["--version"], { timeoutMs: 10_000 });
  const match = /version (\d+)\.(\d+)(\.\d+)?/.exec(shown.stdout);
  const [major, minor] = [Number(match?.[1]), Number(match?.[2])];
  const version = match?.[0].slice("version ".length);
  if (version === undefined || major < oldest[0] || (major === oldest[0] && minor < oldest[1])) {
    return unusable(
      `${binary} is QEMU ${version ?? "of an unknown version"}; 7.2 or later is needed.`,
      "Install a newer QEMU (Debian 12 or later has one).",
    );
  }
  if (options.accelerator === "tcg") {
    const reason = "Software emulation was asked for.";
    return { probe: { usable: true, accelerator: "tcg", reason, version }, cpu: "host" };
  }
  const kvm = await probeKvm({ qemu: binary, cacheDir: options.stateDir });
  const cpu = kvm.cpu ?? "host";
  const fix = kvm.fix === undefined ? {} : { fix: kvm.fix };
  const { reason } = kvm;
  if (kvm.usable) return { probe: { usable: true, accelerator: "kvm", reason, version }, cpu };
  if (options.accelerator === "kvm") {
    return { probe: { usable: false, accelerator: "none", reason, version, ...fix }, cpu };
  }
  const emulated = `Software emulation, because KVM cannot be used: ${reason}`;
  return {
    probe: { usable: true, accelerator: "tcg", reason: emulated, version, ...fix },
    cpu,
  };
}
