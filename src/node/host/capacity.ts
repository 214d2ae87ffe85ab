/** What this host has for pods, and how it is. */
import { statfs } from "node:fs/promises";
import { readFile } from "node:fs/promises";
import { cpus, release, totalmem } from "node:os";
import { hostArchitecture } from "../../util/hosts/architecture.ts";

/** What VMs of pods may use of this host. */
export interface Capacity {
  /** Processors. */
  cpus: number;
  memoryBytes: number;
  pods: number;
}

/** How much of a resource has to be left, as a share: less is pressure. */
const LITTLE_DISK = 0.1;
const LITTLE_MEMORY = 0.05;
/** Left to the host itself, in bytes, or as a share of what it has: whichever is less. */
const HOST_BYTES = 2 ** 30;
const HOST_SHARE = 0.1;

/** What a host has by itself: all processors, and the memory but for a rest. */
export function ownCapacity(): Capacity {
  const total = totalmem();
  return {
    cpus: cpus().length,
    memoryBytes: Math.floor(total - Math.min(HOST_BYTES, total * HOST_SHARE)),
    pods: 110,
  };
}

/** Bytes of the file system that disks of VMs are on. */
export async function diskOf(directory: string): Promise<{ total: number; free: number }> {
  const { blocks, bavail, bsize } = await statfs(directory);
  return { total: blocks * bsize, free: bavail * bsize };
}

/** What of the host is short. */
export interface Pressure {
  memory: boolean;
  disk: boolean;
}

/** Whether memory or disk are short. */
export async function pressureOf(directory: string): Promise<Pressure> {
  const { total, free } = await diskOf(directory);
  const info = await readFile("/proc/meminfo", "utf8");
  const kib = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(info)?.[1] ?? 0);
  return {
    memory: kib("MemAvailable") < kib("MemTotal") * LITTLE_MEMORY,
    disk: free < total * LITTLE_DISK,
  };
}

/** A field of /etc/os-release; empty when there is none. */
async function osName(): Promise<string> {
  try {
    const text = await readFile("/etc/os-release", "utf8");
    return /^PRETTY_NAME="?([^"\n]*)/m.exec(text)?.[1] ?? "";
  } catch {
    // ENOENT: a host without a name.
    return "";
  }
}

async function idOf(path: string): Promise<string> {
  try {
    return (await readFile(path, "utf8")).trim();
  } catch {
    // A container may have none.
    return "";
  }
}

/** What Kubernetes shows of a node's machine. @param version of vmsan */
export async function nodeInfo(version: string): Promise<Record<string, string>> {
  return {
    machineID: await idOf("/etc/machine-id"),
    systemUUID: await idOf("/etc/machine-id"),
    bootID: await idOf("/proc/sys/kernel/random/boot_id"),
    kernelVersion: release(),
    osImage: await osName(),
    containerRuntimeVersion: `vmsan://${version}`,
    kubeletVersion: `v${KUBERNETES_VERSION}-vmsan.${version}`,
    kubeProxyVersion: "",
    operatingSystem: "linux",
    architecture: hostArchitecture(),
  };
}

/** The version of Kubernetes whose node API this one speaks. */
const KUBERNETES_VERSION = "1.37.0";
