/**
 * Control groups of VMs: memory, processor time and number of processes, on version 2 where
 * it has the controllers, else on version 1. What cannot be enforced is said, not hidden.
 */
import { existsSync } from "node:fs";
import { mkdir, readFile, rmdir, writeFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { errnoOf, messageOf } from "../model/errors.ts";
import { identityOf } from "../util/process-identity.ts";
import { killAndWait } from "./exit.ts";

/** What a VM's processes may use on the host. */
export interface CgroupLimits {
  memoryBytes: number;
  /** Processors: 1.5 is one and a half. */
  cpus: number;
  pids: number;
}

/** Where the hierarchies are mounted. */
export interface CgroupMounts {
  /** Mount point of version 2 and the controllers it offers. */
  v2?: { path: string; controllers: string[] };
  /** Mount points of version 1 by controller. */
  v1: Record<string, string>;
}

/** A VM's control groups. */
export interface Cgroup {
  /** Directories whose cgroup.procs a process joins. */
  dirs: string[];
  /** Path below the mount point(s), for reports. */
  name: string;
  version: 1 | 2;
  /** Limits that could not be set, in words. */
  notEnforced: string[];
}

/** How long the kernel is given to let go of a group, in milliseconds. */
const REMOVE_MS = 1000;

/** All VMs' groups are below this one. */
const parentName = "vmsan";

/** Path of a VM's group below each hierarchy's mount point. */
export function cgroupName(id: string): string {
  return `/${parentName}/${id}`;
}

export const controllers = ["memory", "cpu", "pids"] as const;
type Controller = (typeof controllers)[number];

/** Parse /proc/self/mountinfo (proc(5)) for control groups. */
export function parseMountinfo(text: string): { path: string; type: string; options: string[] }[] {
  return text.split("\n").flatMap((line) => {
    const [left, right] = line.split(" - ");
    if (left === undefined || right === undefined) return [];
    const path = left.split(" ")[4] ?? "";
    const [type = "", , options = ""] = right.split(" ");
    if (type !== "cgroup" && type !== "cgroup2") return [];
    return [{ path, type, options: options.split(",") }];
  });
}

/** Find the mounted hierarchies. */
export async function findCgroups(): Promise<CgroupMounts> {
  const mounts: CgroupMounts = { v1: {} };
  for (const mount of parseMountinfo(await readFile("/proc/self/mountinfo", "utf8"))) {
    if (mount.type === "cgroup2") {
      const list = await readFile(join(mount.path, "cgroup.controllers"), "utf8");
      mounts.v2 ??= { path: mount.path, controllers: list.split(/\s+/).filter(Boolean) };
    } else {
      for (const name of controllers) {
        if (mount.options.includes(name)) mounts.v1[name] ??= mount.path;
      }
    }
  }
  return mounts;
}

/** Files and values that set a limit. */
export function cgroupSettings(
  version: 1 | 2,
  controller: Controller,
  limits: CgroupLimits,
): [string, string][] {
  const quota = Math.max(1000, Math.round(limits.cpus * 100_000));
  if (controller === "pids") return [["pids.max", String(limits.pids)]];
  if (controller === "memory") {
    const bytes = String(limits.memoryBytes);
    return version === 2
      ? [
          ["memory.max", bytes],
          ["memory.oom.group", "1"],
        ]
      : [["memory.limit_in_bytes", bytes]];
  }
  return version === 2
    ? [["cpu.max", `${quota} 100000`]]
    : [
        ["cpu.cfs_period_us", "100000"],
        ["cpu.cfs_quota_us", String(quota)],
      ];
}

/** Make a version 2 group with these controllers enabled on the way down. */
async function makeV2(mount: string, id: string): Promise<string> {
  const enable = controllers.map((name) => `+${name}`).join(" ");
  const parent = join(mount, parentName);
  await mkdir(parent, { recursive: true });
  await writeFile(join(mount, "cgroup.subtree_control"), enable);
  await writeFile(join(parent, "cgroup.subtree_control"), enable);
  const dir = join(parent, id);
  await mkdir(dir, { recursive: true });
  return dir;
}

/**
 * What all VMs together weigh beside single processes, on version 1: there the group of all counts as one
 * process of the root group, so that every VM stands still where a host has other work.
 */
async function weigh(mount: string): Promise<void> {
  const shares = String(1024 * availableParallelism());
  await writeFile(join(mount, parentName, "cpu.shares"), shares).catch(() => undefined);
}

/** Set one controller's limits in a directory; the reason when that fails. */
async function limit(
  dir: string,
  version: 1 | 2,
  controller: Controller,
  limits: CgroupLimits,
): Promise<string | undefined> {
  try {
    for (const [file, value] of cgroupSettings(version, controller, limits)) {
      await writeFile(join(dir, file), value);
    }
    return undefined;
  } catch (error) {
    return messageOf(error);
  }
}

/**
 * Make a VM's groups and set its limits. Never throws for a host that allows none of it: the
 * result then has no directories and says why.
 */
export async function createCgroup(
  id: string,
  limits: CgroupLimits,
  mounts?: CgroupMounts,
): Promise<Cgroup> {
  const found = mounts ?? (await findCgroups());
  const name = cgroupName(id);
  const v2 = found.v2;
  if (v2 !== undefined && controllers.every((controller) => v2.controllers.includes(controller))) {
    const result: Cgroup = { dirs: [], name, version: 2, notEnforced: [] };
    try {
      const dir = await makeV2(v2.path, id);
      result.dirs.push(dir);
      for (const controller of controllers) {
        const why = await limit(dir, 2, controller, limits);
        if (why !== undefined) result.notEnforced.push(`${controller} limit: ${why}`);
      }
    } catch (error) {
      result.notEnforced.push(`memory, cpu and pids limits: ${messageOf(error)}`);
    }
    return result;
  }
  const result: Cgroup = { dirs: [], name, version: 1, notEnforced: [] };
  for (const controller of controllers) {
    const mount = found.v1[controller];
    let why: string | undefined = "no control group hierarchy of this host has it";
    if (mount !== undefined) {
      const dir = join(mount, parentName, id);
      try {
        await mkdir(dir, { recursive: true });
        result.dirs.push(dir);
        if (controller === "cpu") await weigh(mount);
        why = await limit(dir, 1, controller, limits);
      } catch (error) {
        why = messageOf(error);
      }
    }
    if (why !== undefined) result.notEnforced.push(`${controller} limit: ${why}`);
  }
  return result;
}

/** Remove a directory that the kernel may keep for a moment after its last process's end. */
async function removeGroup(dir: string): Promise<string | undefined> {
  const until = performance.now() + REMOVE_MS;
  for (let wait = 1; ; wait = Math.min(2 * wait, 20)) {
    try {
      await rmdir(dir);
      return undefined;
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return undefined;
      if (errnoOf(error) !== "EBUSY" || performance.now() > until) return messageOf(error);
    }
    await sleep(wait);
  }
}

/**
 * Remove a VM's groups in every hierarchy; its processes must be gone.
 * @returns what was removed and what could not be
 */
export async function removeCgroup(
  id: string,
  mounts?: CgroupMounts,
): Promise<{ removed: string[]; failed: { what: string; why: string }[] }> {
  const found = mounts ?? (await findCgroups());
  const result: { removed: string[]; failed: { what: string; why: string }[] } = {
    removed: [],
    failed: [],
  };
  const roots = new Set([...Object.values(found.v1), ...(found.v2 ? [found.v2.path] : [])]);
  await Promise.all(
    [...roots].map(async (root) => {
      const dir = join(root, parentName, id);
      if (!existsSync(join(dir, "cgroup.procs"))) return;
      const why = await removeGroup(dir);
      if (why === undefined) result.removed.push(dir);
      else result.failed.push({ what: dir, why });
    }),
  );
  return result;
}

/** Ids of the processes in a VM's groups. */
export async function cgroupProcesses(id: string, mounts?: CgroupMounts): Promise<number[]> {
  const found = mounts ?? (await findCgroups());
  const pids = new Set<number>();
  for (const root of [...Object.values(found.v1), ...(found.v2 ? [found.v2.path] : [])]) {
    const path = join(root, parentName, id, "cgroup.procs");
    // ENOENT: no group in this hierarchy.
    const text = await readFile(path, "utf8").catch(() => "");
    for (const line of text.split("\n").filter(Boolean)) pids.add(Number(line));
  }
  return [...pids];
}

/**
 * Kill every process in a VM's groups and wait for their end.
 * @returns their ids
 */
export async function killCgroup(id: string, mounts?: CgroupMounts): Promise<number[]> {
  const pids = await cgroupProcesses(id, mounts);
  for (const pid of pids) {
    const identity = identityOf(pid);
    if (identity !== undefined) await killAndWait(identity);
  }
  return pids;
}
