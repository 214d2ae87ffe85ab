/** Which driver runs a VM, and why; refused before anything is made when none can. */
import { VmsanError } from "../model/errors.ts";
import type { Accelerator, DriverName } from "../model/vm.ts";
import type { Driver, DriverProbe, ProbeWishes } from "./driver.ts";

/** A driver that works here. */
export interface DriverChoice {
  driver: Driver;
  accelerator: Accelerator;
  /** One or more sentences for people: kept on the VM, shown by --verbose and doctor. */
  reason: string;
  /** Version of the VMM. */
  version?: string;
}

/** Drivers in the order in which `auto` prefers them; `fake` only when asked for. */
const preference: readonly DriverName[] = ["firecracker", "qemu"];

/** The choice that a successful probe gives. */
function chosen(driver: Driver, probe: DriverProbe, before: readonly string[]): DriverChoice {
  return {
    driver,
    accelerator: probe.accelerator,
    reason: [...before, probe.reason].join(" "),
    ...(probe.version === undefined ? {} : { version: probe.version }),
  };
}

/**
 * Choose a driver.
 * `auto`: Firecracker with KVM, then QEMU with KVM, then QEMU by software emulation.
 * Throws ERR_DRIVER_UNKNOWN for a name that is not among `drivers`, ERR_DRIVER_UNUSABLE when
 * the one asked for, or with `auto` every one, cannot work here; both say why and what to do.
 */
export async function chooseDriver(
  requested: DriverName | "auto",
  drivers: readonly Driver[],
  wishes: ProbeWishes = {},
): Promise<DriverChoice> {
  if (requested !== "auto") {
    const driver = drivers.find((one) => one.name === requested);
    if (driver === undefined) {
      throw new VmsanError({
        code: "ERR_DRIVER_UNKNOWN",
        message: `Cannot use the driver ${requested as string}`,
        why: `The drivers here are ${drivers.map((one) => one.name).join(", ")}.`,
        fix: "Use --driver auto.",
      });
    }
    const probe = await driver.probe(wishes);
    if (probe.usable) return chosen(driver, probe, []);
    throw new VmsanError({
      code: "ERR_DRIVER_UNUSABLE",
      message: `Cannot use the driver ${requested} here`,
      why: probe.reason,
      fix: probe.fix ?? "Use --driver auto.",
      details: { driver: requested },
    });
  }
  const refused: { name: DriverName; probe: DriverProbe }[] = [];
  for (const name of preference) {
    const driver = drivers.find((one) => one.name === name);
    if (driver === undefined) continue;
    const probe = await driver.probe(wishes);
    if (probe.usable) {
      const before = refused.map((one) => `Not ${one.name}: ${one.probe.reason}`);
      return chosen(driver, probe, before);
    }
    refused.push({ name, probe });
  }
  throw new VmsanError({
    code: "ERR_DRIVER_UNUSABLE",
    message: "Cannot run VMs on this host",
    why: refused.map((one) => `${one.name}: ${one.probe.reason}`).join(" "),
    fix:
      refused.at(-1)?.probe.fix ??
      "Install qemu-system-x86 (aarch64: qemu-system-arm) or Firecracker.",
  });
}
