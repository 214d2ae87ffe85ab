/**
 * boot/: kernels and initramfs for guests. Takes a distribution's kernel package or any
 * kernel file and the agent's binary; gives an uncompressed kernel, its modules and an
 * initramfs, all cached and complete. Needs no root and writes only below its own directory.
 */
import { createHash } from "node:crypto";
import { readFile, realpath, stat } from "node:fs/promises";
import { basename, dirname } from "node:path";
import { VmsanError, messageOf } from "../model/errors.ts";
import type { ProgressSink } from "../model/progress.ts";
import {
  compareVersions,
  downloadCloudKernel,
  installedCloudKernel,
  releaseOfKernel,
  type KernelFiles,
} from "./kernel-debian.ts";
import { lacksFeatures, missingFeatures } from "./kernel-features.ts";
import { collectModules, releaseOfModules, type KernelModule } from "./kernel-modules.ts";
import {
  listKernels,
  readKernel,
  selectedKernelId,
  storeKernel,
  withKernelStore,
  type Kernel,
} from "./kernel-store.ts";
import { unpackKernel, type KernelArch } from "./kernel-unpack.ts";
import { addModulesDisk, type ModulesSource } from "./modules/ensure.ts";

export {
  listKernels,
  removeKernel,
  selectKernel,
  selectedKernelId,
  verifyKernel,
  type Kernel,
} from "./kernel-store.ts";
export type { KernelArch } from "./kernel-unpack.ts";
export { ensureModulesDisk } from "./modules/ensure.ts";

/** What {@link ensureKernel} takes. */
export interface EnsureKernelOptions {
  /** Directory of the kernel store, e.g. VMSAN_DIR/kernels. */
  dir: string;
  signal?: AbortSignal;
  progress?: ProgressSink;
  /** Default: this machine's. */
  arch?: KernelArch;
}

/** This machine's architecture; ERR_PLATFORM_ARCH on others than x86_64 and aarch64. */
export function hostArch(): KernelArch {
  if (process.arch === "x64") return "x86_64";
  if (process.arch === "arm64") return "aarch64";
  throw new VmsanError({
    code: "ERR_PLATFORM_ARCH",
    message: `Cannot run VMs on a ${process.arch} machine`,
    why: "vmsan has kernels and an agent for x86_64 and aarch64 only.",
    fix: "Use a machine of one of these architectures.",
  });
}

/** The stored kernel that new VMs get: the chosen one, else the newest of the default kind. */
export async function storedKernel(dir: string, arch: KernelArch): Promise<Kernel | undefined> {
  const id = await selectedKernelId(dir);
  if (id !== undefined) {
    const kernel = await readKernel(dir, id);
    if (kernel?.arch === arch) return kernel;
  }
  const own = (await listKernels(dir)).filter((kernel) => kernel.arch === arch);
  const newest = (origin: Kernel["origin"]): Kernel | undefined =>
    own
      .filter((kernel) => kernel.origin === origin)
      .sort((a, b) =>
        compareVersions(b.packageVersion ?? b.version, a.packageVersion ?? a.version),
      )[0];
  // A kernel that the user took nine minutes to build is meant to be used.
  return newest("built") ?? newest("debian");
}

/** Unpack a kernel's files and put them into the store; call with the lock held. */
async function importFiles(
  dir: string,
  scratch: string,
  files: KernelFiles,
  signal?: AbortSignal,
): Promise<Kernel> {
  const image = await unpackKernel(await readFile(files.vmlinuz), files.vmlinuz, signal);
  const modules = await collectModules(files.modulesDir, signal);
  const kernel = await storeKernel(dir, scratch, {
    image,
    modules,
    version: files.release,
    origin: "debian",
    source: files.source,
    ...(files.packageVersion === undefined ? {} : { packageVersion: files.packageVersion }),
  });
  return await addModulesDisk(dir, scratch, kernel, { dir: files.modulesDir }, signal);
}

/**
 * A kernel to boot guests with: from the store (no network, no other program), else the
 * host's installed Debian cloud kernel, else Debian's package by apt.
 * Throws ERR_KERNEL_MISSING when there is none to be had.
 */
export async function ensureKernel(options: EnsureKernelOptions): Promise<Kernel> {
  const { dir, signal, progress } = options;
  const arch = options.arch ?? hostArch();
  const stored = await storedKernel(dir, arch);
  if (stored !== undefined) return stored;
  return await withKernelStore(
    dir,
    async (scratch) => {
      const meanwhile = await storedKernel(dir, arch);
      if (meanwhile !== undefined) return meanwhile;
      const context = {
        ...(signal === undefined ? {} : { signal }),
        ...(progress === undefined ? {} : { progress }),
      };
      const files =
        (await installedCloudKernel(arch, signal)) ??
        (await downloadCloudKernel(scratch, arch, context));
      return await importFiles(dir, scratch, files, signal);
    },
    signal,
  );
}

/** In the banner of kernels that scripts/build-kernel.sh has built. */
const builtBy = "(vmsan@vmsan)";
/** Most bytes of a kernel file. */
const maxKernelFile = 512 << 20;

/** What {@link addKernel} takes. */
export interface AddKernelOptions {
  dir: string;
  /** Any kernel file: vmlinuz, bzImage, vmlinux, Image. */
  file: string;
  /** Its /lib/modules/VERSION directory; without it everything must be built in. */
  modulesDir?: string;
  /** Default: what the kernel's banner says. */
  origin?: "added" | "built";
  signal?: AbortSignal;
}

/** Read a kernel file or say why it cannot be one. */
async function readKernelFile(file: string): Promise<Buffer> {
  let why: string;
  let cause: unknown;
  try {
    const info = await stat(file);
    if (info.isFile() && info.size <= maxKernelFile) return await readFile(file);
    why = info.isFile() ? "It is larger than 512 MiB." : "It is not a file.";
  } catch (error) {
    why = messageOf(error);
    cause = error;
  }
  const fix = "Give the path of a kernel file that can be read.";
  const message = `Cannot add ${file} as a kernel`;
  throw new VmsanError({ code: "ERR_KERNEL_FORMAT", message, why, fix }, cause);
}

/** The whole kernel of a store, this one or another, that a path leads to. */
async function storedAt(file: string): Promise<{ store: string; kernel: Kernel } | undefined> {
  let path: string;
  try {
    path = await realpath(file);
  } catch {
    // ENOENT and the like: whoever reads the file says so.
    return undefined;
  }
  const home = dirname(path);
  const kernel = await readKernel(dirname(home), basename(home));
  return kernel?.vmlinux === path ? { store: dirname(home), kernel } : undefined;
}

/** The modules of a stored kernel, in their order. */
async function modulesOf(kernel: Kernel): Promise<KernelModule[]> {
  const modules: KernelModule[] = [];
  for (const path of kernel.modules) {
    modules.push({ name: basename(path, ".ko"), bytes: await readFile(path) });
  }
  return modules;
}

/**
 * Verify, unpack and keep a kernel of the user's. The same file with the same modules is the same
 * kernel, however often it is added. A file of a store, or a copy of one, is that kernel with its
 * modules; any other one without modules must have built in what a guest needs.
 * @throws ERR_KERNEL_FORMAT, ERR_KERNEL_FEATURE, ERR_KERNEL_UNPACK, ERR_KERNEL_STORE
 */
export async function addKernel(options: AddKernelOptions): Promise<Kernel> {
  const { dir, file, modulesDir, signal } = options;
  const stored = modulesDir === undefined ? await storedAt(file) : undefined;
  if (stored !== undefined && stored.store === (await realpath(dir).catch(() => dir))) {
    // By the store's name here, which may be a link.
    return (await readKernel(dir, stored.kernel.id)) ?? stored.kernel;
  }
  const image = await unpackKernel(await readKernelFile(file), file, signal);
  const release = releaseOfKernel(image.bytes);
  let modules: KernelModule[] = [];
  let source: ModulesSource | undefined;
  if (stored !== undefined) {
    modules = await modulesOf(stored.kernel);
    if (stored.kernel.modulesDisk !== undefined) source = { disk: stored.kernel.modulesDisk };
  } else if (modulesDir !== undefined) {
    modules = await collectModules(modulesDir, signal);
    const theirs = await releaseOfModules(modulesDir, signal);
    if (release !== undefined && theirs !== undefined && theirs !== release) {
      throw new VmsanError({
        code: "ERR_KERNEL_FEATURE",
        message: `Cannot give the kernel ${file} the modules of ${modulesDir}`,
        why: `The kernel is ${release}, its modules are of ${theirs}: it would load none.`,
        fix: "Give the /lib/modules/VERSION of that very kernel.",
      });
    }
    source = { dir: modulesDir };
  }
  const missing = modules.length > 0 ? [] : missingFeatures(image.bytes);
  if (missing.length > 0 && modulesDir === undefined) {
    const sha256 = createHash("sha256").update(image.bytes).digest("hex");
    const twin = (await listKernels(dir)).find((kernel) => kernel.sha256 === sha256);
    if (twin !== undefined && twin.modules.length > 0) return twin;
    throw lacksFeatures(file, missing);
  }
  return await withKernelStore(
    dir,
    async (scratch) => {
      const kernel = await storeKernel(dir, scratch, {
        image,
        modules,
        version: release ?? "unknown",
        origin: options.origin ?? (image.bytes.includes(builtBy) ? "built" : "added"),
        source: file,
      });
      if (source === undefined) return kernel;
      return await addModulesDisk(dir, scratch, kernel, source, signal);
    },
    signal,
  );
}
