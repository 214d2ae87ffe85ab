/** Checks of the machine: platform, Node.js, memory, and the disk that VMSAN_DIR is on. */
import { constants } from "node:fs";
import { copyFile, mkdtemp, open, readFile, rm, stat, statfs, writeFile } from "node:fs/promises";
import { arch, platform } from "node:os";
import { dirname, join } from "node:path";
import { errnoOf } from "../model/errors.ts";
import { formatBytes } from "../util/units.ts";
import type { Check, Finding } from "./check.ts";

const GIB = 2 ** 30;

/** Text of a file of the kernel's; empty when it is not there. */
export async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (["ENOENT", "EACCES", "ENOTDIR", "EPERM"].includes(errnoOf(error) ?? "")) return "";
    throw error;
  }
}

/** The first directory from this one upward that exists. */
async function existingParent(path: string): Promise<string> {
  try {
    await stat(path);
    return path;
  } catch (error) {
    if (errnoOf(error) !== "ENOENT" || dirname(path) === path) throw error;
    return await existingParent(dirname(path));
  }
}

/** Run a body in a temporary directory on the file system of VMSAN_DIR. */
async function onSameDisk(root: string, body: (dir: string) => Promise<Finding>): Promise<Finding> {
  const parent = await existingParent(root);
  let dir: string;
  try {
    dir = await mkdtemp(join(parent, ".vmsan-doctor-"));
  } catch (error) {
    if (!["EACCES", "EROFS", "EPERM"].includes(errnoOf(error) ?? "")) throw error;
    return {
      status: "fail",
      detail: `${parent} cannot be written (${errnoOf(error)}).`,
      fix: "Set VMSAN_DIR to a directory that you can write.",
    };
  }
  try {
    return await body(dir);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

/** Value of a field of /proc/meminfo in bytes. */
async function memoryField(name: string): Promise<number> {
  const text = await readFile("/proc/meminfo", "utf8");
  return Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(text)?.[1] ?? 0) * 1024;
}

/** Mount options of the file system that a path is on (proc(5), mountinfo). */
async function mountOptions(
  path: string,
): Promise<{ point: string; options: string[]; type: string }> {
  let best = { point: "", options: [] as string[], type: "" };
  for (const line of (await readFile("/proc/self/mountinfo", "utf8")).split("\n")) {
    const [left = "", right = ""] = line.split(" - ");
    const fields = left.split(" ");
    const point = (fields[4] ?? "").replaceAll("\\040", " ");
    const inside = path === point || path.startsWith(point === "/" ? "/" : `${point}/`);
    if (point === "" || !inside || point.length < best.point.length) continue;
    best = { point, options: (fields[5] ?? "").split(","), type: right.split(" ")[0] ?? "" };
  }
  return best;
}

export const machineChecks: readonly Check[] = [
  {
    name: "platform",
    run: async () => {
      const known = platform() === "linux" && ["x64", "arm64"].includes(arch());
      const kernel = (await readText("/proc/sys/kernel/osrelease")).trim();
      return known
        ? { status: "ok", detail: `Linux ${kernel} on ${arch()}.` }
        : {
            status: "fail",
            detail: `${platform()} on ${arch()} has no driver.`,
            fix: "Use Linux on x86_64 or aarch64.",
          };
    },
  },
  {
    name: "node-version",
    run: async () => {
      const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
      const ok = major > 22 || (major === 22 && minor >= 18);
      const detail = `Node.js ${process.versions.node} at ${process.execPath}.`;
      return ok
        ? { status: "ok", detail }
        : { status: "fail", detail, fix: "vmsan needs 22.18 or newer; install.sh brings one." };
    },
  },
  {
    name: "memory",
    run: async () => {
      const available = await memoryField("MemAvailable");
      const detail = `${formatBytes(available)} of ${formatBytes(await memoryField("MemTotal"))} available.`;
      if (available >= GIB) return { status: "ok", detail };
      return {
        status: "warn",
        detail,
        fix: "A VM takes 512 MiB unless told otherwise: free some memory or use --memory 128.",
      };
    },
  },
  {
    name: "vmsan-dir",
    run: ({ layout }) =>
      onSameDisk(layout.root, async () => {
        const found = await stat(layout.root).catch(() => undefined); // not made yet
        if (found !== undefined && (found.mode & 0o022) !== 0) {
          return {
            status: "fail",
            detail: `${layout.root} can be written by others, who could replace kernels and disks in it.`,
            fix: `chmod go-w ${layout.root}`,
          };
        }
        return { status: "ok", detail: `${layout.root} can be written.` };
      }),
  },
  {
    name: "disk-space",
    run: async ({ layout }) => {
      const dir = await existingParent(layout.root);
      const { bavail, bsize, ffree } = await statfs(dir);
      const free = bavail * bsize;
      const detail = `${formatBytes(free)} free on the file system of ${layout.root}.`;
      const fix = "Free space, move VMSAN_DIR, or run `vmsan image prune`.";
      if (free < GIB || (ffree > 0 && ffree < 1000)) return { status: "fail", detail, fix };
      return free < 5 * GIB ? { status: "warn", detail, fix } : { status: "ok", detail };
    },
  },
  {
    name: "sparse-files",
    run: ({ layout }) =>
      onSameDisk(layout.root, async (dir) => {
        const file = await open(join(dir, "sparse"), "w");
        try {
          await file.write(Buffer.from([1]), 0, 1, GIB);
          await file.sync();
          const { blocks } = await file.stat();
          const { type } = await mountOptions(dir);
          return blocks * 512 < GIB / 4
            ? { status: "ok", detail: `${type || "The file system"} keeps holes.` }
            : {
                status: "warn",
                detail: `${type || "The file system"} keeps no holes: a 10 GB disk takes 10 GB.`,
                fix: "Put VMSAN_DIR on ext4, XFS, Btrfs or tmpfs.",
              };
        } finally {
          await file.close();
        }
      }),
  },
  {
    name: "reflink",
    run: ({ layout }) =>
      onSameDisk(layout.root, async (dir) => {
        const { type } = await mountOptions(dir);
        await writeFile(join(dir, "from"), "x".repeat(4096));
        try {
          await copyFile(join(dir, "from"), join(dir, "to"), constants.COPYFILE_FICLONE_FORCE);
          return { status: "ok", detail: `${type} shares blocks between copies.` };
        } catch (error) {
          if (!["ENOTSUP", "EXDEV", "EINVAL", "ENOSYS", "ENOTTY"].includes(errnoOf(error) ?? ""))
            throw error;
          return {
            status: "skip",
            detail: `${type || "The file system"} cannot share blocks between copies; only --disk-mode flat would use it.`,
          };
        }
      }),
  },
  {
    name: "nodev",
    run: async ({ layout }) => {
      const dir = await existingParent(layout.root);
      const { point, options, type } = await mountOptions(dir);
      const where = `${point} (${type})`;
      if (options.includes("nodev") && process.getuid?.() === 0) {
        return {
          status: "warn",
          detail: `${where} is mounted nodev: the jailer's device nodes do not work there.`,
          fix: `Move VMSAN_DIR to another file system, or mount ${point} without nodev.`,
        };
      }
      return { status: "ok", detail: `${where} is mounted ${options.join(",")}.` };
    },
  },
];
