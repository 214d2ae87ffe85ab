/** What VMs use: counters and sizes at one moment. Rates are the difference of two of them. */
import type { VmStatus } from "./vm.ts";

/** What the host sees of a VM: its VMM's process, its files, its network card. */
export interface HostUse {
  /** Processor time of the VMM since its start, in milliseconds. */
  cpuMs: number;
  /** Memory of the VMM that is in RAM; pages that clones share count for each. */
  residentBytes: number;
  /** What the VM's own files take; disks that are shared are not among them. */
  diskBytes: number;
  /** What its card has received and sent, as the guest sees it. Absent where there is none. */
  receivedBytes?: number;
  sentBytes?: number;
}

/** What the guest says of itself; not to be trusted. Times and bytes count from its boot. */
export interface GuestUse {
  /** Of all processors together, in milliseconds. */
  cpuBusyMs: number;
  cpuIdleMs: number;
  memTotalBytes: number;
  memAvailableBytes: number;
  memCachedBytes: number;
  /** Of the file system at `/`. */
  diskTotalBytes: number;
  diskFreeBytes: number;
  readBytes: number;
  writtenBytes: number;
  receivedBytes: number;
  sentBytes: number;
  processes: number;
}

/** What a VM uses at one moment. */
export interface VmSample {
  id: string;
  name?: string;
  project: string;
  status: VmStatus;
  /** ISO 8601. */
  at: string;
  vcpus: number;
  memMib: number;
  /** Absent when it has no process. */
  host?: HostUse;
  /** Absent when it does not run, or does not answer in time. */
  guest?: GuestUse;
}

/** What a VM used between two samples. */
export interface VmRates {
  /** Of one processor of the host, in percent: 200 is two of them. */
  hostCpuPercent?: number;
  /** Of all the guest's processors, in percent: 100 is all of them. */
  guestCpuPercent?: number;
}

/** The part of a whole in percent, to two digits; undefined when there is no whole. */
function percent(part: number, whole: number): number | undefined {
  if (!(whole > 0) || !(part >= 0)) return undefined;
  return Math.round((part / whole) * 10_000) / 100;
}

/** What was used between two samples of a VM; nothing when it was started anew between them. */
export function ratesOf(before: VmSample, after: VmSample): VmRates {
  const ms = Date.parse(after.at) - Date.parse(before.at);
  const hostCpuPercent =
    before.host && after.host ? percent(after.host.cpuMs - before.host.cpuMs, ms) : undefined;
  let guestCpuPercent: number | undefined;
  if (before.guest && after.guest) {
    const busy = after.guest.cpuBusyMs - before.guest.cpuBusyMs;
    const idle = after.guest.cpuIdleMs - before.guest.cpuIdleMs;
    guestCpuPercent = percent(busy, busy + idle);
  }
  return {
    ...(hostCpuPercent === undefined ? {} : { hostCpuPercent }),
    ...(guestCpuPercent === undefined ? {} : { guestCpuPercent }),
  };
}
