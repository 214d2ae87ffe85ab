/** The disk of modules of a stored kernel: there, or made from wherever its modules can be had. */
import { copyFile, readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { VmsanError, errnoOf, messageOf } from "../../model/errors.ts";
import type { ProgressSink } from "../../model/progress.ts";
import { downloadCloudKernel } from "../kernel-debian.ts";
import { indexModules, readModule, type ModuleFile } from "../kernel-modules.ts";
import { keepModulesDisk, readKernel, withKernelStore, type Kernel } from "../kernel-store.ts";
import { writeModulesDisk } from "./disk.ts";

/** Where the disk's content comes from: a /lib/modules/VERSION directory, or a disk made before. */
export type ModulesSource = { dir: string } | { disk: string };

/**
 * Make the disk of modules and give it to a stored kernel that has none; call with the lock held.
 * One that is there is never replaced: guests and snapshots may have it mounted.
 * @param scratch directory on the store's file system
 * @throws ERR_KERNEL_STORE when the kernel has other modules
 */
export async function addModulesDisk(
  dir: string,
  scratch: string,
  kernel: Kernel,
  source: ModulesSource,
  signal?: AbortSignal,
): Promise<Kernel> {
  const file = join(scratch, "modules.ext4");
  if ("disk" in source) await copyFile(source.disk, file);
  else await writeModulesDisk(source.dir, kernel.version, file, signal);
  if (kernel.modulesDisk !== undefined) {
    if ((await readFile(file)).equals(await readFile(kernel.modulesDisk))) return kernel;
    throw new VmsanError({
      code: "ERR_KERNEL_STORE",
      message: `Cannot give the kernel ${kernel.id} other modules`,
      why: "It is stored with modules already, which guests and snapshots of it may have in use.",
      fix: `Remove it first: vmsan kernel rm ${kernel.id}`,
    });
  }
  return await keepModulesDisk(dir, kernel.id, file);
}

/** Whether a /lib/modules/VERSION directory is of the very build whose modules the store holds. */
async function isTreeOf(kernel: Kernel, dir: string): Promise<boolean> {
  let index: Map<string, ModuleFile>;
  try {
    index = await indexModules(dir);
  } catch (error) {
    if (["ENOENT", "ENOTDIR", "EACCES"].includes(errnoOf(error) ?? "")) return false;
    throw error;
  }
  for (const path of kernel.modules) {
    const file = index.get(basename(path, ".ko"));
    if (file === undefined) return false;
    if (!(await readModule(file)).equals(await readFile(path))) return false;
  }
  return true;
}

/** Kernels whose modules could not be had, and why: asked for once in a process's life. */
const inVain = new Map<string, string>();

/** What {@link ensureModulesDisk} takes besides the kernel. */
export interface EnsureModulesOptions {
  /** Directory of the kernel store. */
  dir: string;
  /** Fetch Debian's package where the host has no modules of the kernel; a start never waits for that. */
  fetch?: boolean;
  signal?: AbortSignal;
  progress?: ProgressSink;
}

/** The modules of a kernel that was stored without a disk: the host's, else the package's. */
async function findTree(
  kernel: Kernel,
  scratch: string,
  options: EnsureModulesOptions,
): Promise<string> {
  for (const lib of ["/lib/modules", "/usr/lib/modules"]) {
    const dir = join(lib, kernel.version);
    if (await isTreeOf(kernel, dir)) return dir;
  }
  const none = (why: string): VmsanError =>
    new VmsanError({
      code: "ERR_KERNEL_MISSING",
      message: `Cannot get all modules of the kernel ${kernel.id}`,
      why,
      fix: "Add it again with `vmsan kernel add FILE --modules DIR`, or remove it with `vmsan kernel rm`: vmsan then fetches Debian's current one.",
    });
  if (kernel.origin !== "debian" || options.fetch !== true) {
    const where = `They are not in /lib/modules/${kernel.version}`;
    throw none(kernel.origin === "debian" ? `${where}; vmsan setup fetches them.` : `${where}.`);
  }
  const { modulesDir, release } = await downloadCloudKernel(scratch, kernel.arch, options);
  if (release === kernel.version && (await isTreeOf(kernel, modulesDir))) return modulesDir;
  throw none(`Debian's package is of another build now (${release}).`);
}

/**
 * A kernel with its disk of modules, which one that an earlier version stored gets now. A kernel
 * whose modules are not to be had any more goes without: guests boot, as they did.
 */
export async function ensureModulesDisk(
  kernel: Kernel,
  options: EnsureModulesOptions,
): Promise<Kernel> {
  const { dir, signal, progress } = options;
  const key = join(dir, kernel.id);
  if (kernel.modulesDisk !== undefined || kernel.modules.length === 0 || inVain.has(key)) {
    return kernel;
  }
  try {
    return await withKernelStore(
      dir,
      async (scratch) => {
        const now = (await readKernel(dir, kernel.id)) ?? kernel;
        if (now.modulesDisk !== undefined) return now;
        progress?.({ phase: "setup", item: "kernel", message: "collecting its modules" });
        const source = { dir: await findTree(now, scratch, options) };
        return await addModulesDisk(dir, scratch, now, source, signal);
      },
      signal,
    );
  } catch (error) {
    signal?.throwIfAborted();
    const why = messageOf(error);
    inVain.set(key, why);
    progress?.({ phase: "setup", item: "kernel", message: `guests get no modules: ${why}` });
    return kernel;
  }
}
