/** What a VMM process is confined by, read from /proc: the truth, not what was asked for. */
import { readFileSync, readlinkSync } from "node:fs";
import { VmsanError, errnoOf } from "../model/errors.ts";
import type { Isolation, IsolationReport } from "../model/vm.ts";
import type { DriverCapabilities } from "./driver.ts";

/** A field of /proc/PID/status. */
function field(status: string, name: string): string {
  return new RegExp(`^${name}:\\s*(.*)$`, "m").exec(status)?.[1] ?? "";
}

/** A namespace's identity; undefined when this process may not look. */
function namespaceOf(pid: number | "self", name: string): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/ns/${name}`);
  } catch (error) {
    // EACCES, EPERM: another user's process and no right to look. ENOENT: it is gone.
    if (["EACCES", "EPERM", "ENOENT", "ESRCH"].includes(errnoOf(error) ?? "")) return undefined;
    throw error;
  }
}

/** Capabilities this process has (capabilities(7)), by number. */
export function hasCapabilities(...numbers: number[]): boolean {
  const effective = BigInt(`0x${field(readFileSync("/proc/self/status", "utf8"), "CapEff")}`);
  return numbers.every((number) => ((effective >> BigInt(number)) & 1n) === 1n);
}

/** Numbers of the capabilities that matter here. */
export const capability = {
  kill: 5,
  setgid: 6,
  setuid: 7,
  netAdmin: 12,
  sysChroot: 18,
  sysAdmin: 21,
} as const;

/**
 * Read what confines a process.
 * @param pid the VMM
 * @param known what /proc does not tell: kind of confinement, its control group, what failed
 */
export function readIsolation(
  pid: number,
  known: { mode: string; cgroup?: string; notEnforced: string[] },
): IsolationReport {
  let status = "";
  try {
    status = readFileSync(`/proc/${pid}/status`, "utf8");
  } catch (error) {
    if (errnoOf(error) !== "ENOENT" && errnoOf(error) !== "ESRCH") throw error;
    // The process has just ended; the report of a dead process is empty.
  }
  const notEnforced = [...known.notEnforced];
  const separate = (name: string): boolean => {
    const [its, ours] = [namespaceOf(pid, name), namespaceOf("self", name)];
    if (its === undefined) notEnforced.push(`${name} namespace: /proc does not let us look`);
    return its !== undefined && its !== ours;
  };
  return {
    mode: known.mode,
    uid: Number(field(status, "Uid").split(/\s+/)[1] ?? -1),
    seccomp: field(status, "Seccomp") === "2",
    // Processes in a namespace of their own have one number for each level they are seen from.
    pidNamespace: field(status, "NSpid").trim().split(/\s+/).length > 1,
    networkNamespace: separate("net"),
    ...(known.cgroup === undefined ? {} : { cgroup: known.cgroup }),
    notEnforced,
  };
}

const switches: Record<keyof Isolation, string> = {
  seccomp: "--no-seccomp",
  pidNamespace: "--no-pid-ns",
  cgroup: "--no-cgroup",
  networkNamespace: "--no-netns",
};

/**
 * Refuse switches that cannot do what they say: that turn off what the driver does not have in the
 * first place, or what something else that was asked for stands on.
 * @param card whether the VM is to have a network card
 * Throws ERR_DRIVER_ISOLATION.
 */
export function checkIsolation(
  driver: { name: string; capabilities: Pick<DriverCapabilities, "isolation"> },
  isolation: Isolation,
  card: boolean,
): void {
  for (const name of Object.keys(switches) as (keyof Isolation)[]) {
    if (isolation[name] || driver.capabilities.isolation.includes(name)) continue;
    throw new VmsanError({
      code: "ERR_DRIVER_ISOLATION",
      message: `Cannot use ${switches[name]} with the driver ${driver.name}`,
      why: "This driver has no such isolation to turn off.",
      fix: `Leave out ${switches[name]}.`,
    });
  }
  if (!isolation.networkNamespace && card) {
    throw new VmsanError({
      code: "ERR_DRIVER_ISOLATION",
      message: `Cannot use ${switches.networkNamespace} for a VM with a network card`,
      why: "Its card, and the rules that hold it to its network policy, are in that namespace.",
      fix: `Leave out ${switches.networkNamespace}, or use --network-policy none.`,
    });
  }
}
