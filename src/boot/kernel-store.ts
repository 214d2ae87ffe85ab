/**
 * Kernels kept in a directory, each with its modules and a description, each complete or absent:
 * `ID/kernel.json`, `ID/vmlinux`, `ID/modules/*.ko`, `ID/modules.ext4` (made later where it is
 * missing), and `selected.json` with the chosen one.
 */
import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { VmsanError, errnoOf, messageOf } from "../model/errors.ts";
import { removeAbandoned, sweepAbandoned } from "../util/files/abandoned.ts";
import { syncDirectory, temporarySibling, writeFileAtomic } from "../util/atomic.ts";
import { withLock } from "../util/lock.ts";
import { compareVersions } from "./kernel-debian.ts";
import type { KernelModule } from "./kernel-modules.ts";
import type { Packing } from "../util/packing/packing.ts";
import type { KernelArch, KernelImage } from "./kernel-unpack.ts";

/** A kernel that can be booted: paths are absolute. */
export interface Kernel {
  /** Name in the store. */
  id: string;
  /** Uncompressed kernel: ELF on x86_64, Image on aarch64. */
  vmlinux: string;
  /** `uname -r` of it. */
  version: string;
  arch: KernelArch;
  /** Modules in the order in which they are to be loaded; none when all is built in. */
  modules: string[];
  /** Read-only disk with all its modules for guests; see modules/disk.ts. */
  modulesDisk?: string;
  /** x86: QEMU can boot it (PVH entry note). */
  pvh: boolean;
  /** `debian`: fetched by vmsan; `built`: by scripts/build-kernel.sh; `added`: by the user. */
  origin: "debian" | "built" | "added";
  /** Where it comes from, for people. */
  source: string;
  packageVersion?: string;
  /** SHA-256 of the uncompressed kernel. */
  sha256: string;
  /** How it was packed. */
  compression: Packing;
  addedAt: string;
}

/** What is written to kernel.json: a {@link Kernel} with names instead of paths. */
interface StoredKernel extends Omit<Kernel, "vmlinux" | "modules" | "modulesDisk"> {
  schema: 1;
  /** Bytes of vmlinux: a cheap check that the file is whole. */
  sizeBytes: number;
  /** File names below modules/. */
  modules: { file: string; sizeBytes: number }[];
  modulesDisk?: { sizeBytes: number };
}

/** What is needed to store a kernel. */
export interface NewKernel {
  image: KernelImage;
  modules: readonly KernelModule[];
  version: string;
  origin: Kernel["origin"];
  source: string;
  packageVersion?: string;
}

/** Name of the disk of modules in a kernel's directory. */
const MODULES_DISK = "modules.ext4";

const idPattern = /^[A-Za-z0-9][A-Za-z0-9._+~-]{0,127}$/;

/** Size of a file, -1 when it is not there. */
async function sizeOf(path: string): Promise<number> {
  try {
    return (await stat(path)).size;
  } catch (error) {
    if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ENOTDIR") return -1;
    throw error;
  }
}

/** Whether a parsed kernel.json has the fields that are relied on. */
function isStored(value: unknown): value is StoredKernel {
  if (typeof value !== "object" || value === null) return false;
  const v = value as Partial<StoredKernel>;
  return (
    v.schema === 1 &&
    typeof v.id === "string" &&
    idPattern.test(v.id) &&
    typeof v.version === "string" &&
    (v.arch === "x86_64" || v.arch === "aarch64") &&
    typeof v.sizeBytes === "number" &&
    typeof v.sha256 === "string" &&
    Array.isArray(v.modules) &&
    v.modules.every((m) => typeof m.file === "string" && /^[\w-]+\.ko$/.test(m.file)) &&
    (v.modulesDisk === undefined || typeof v.modulesDisk.sizeBytes === "number")
  );
}

/**
 * Read one kernel of the store.
 * @returns undefined when it is not there or not whole (a file of the wrong size)
 */
export async function readKernel(dir: string, id: string): Promise<Kernel | undefined> {
  if (!idPattern.test(id)) return undefined;
  const home = join(dir, id);
  let stored: unknown;
  try {
    stored = JSON.parse(await readFile(join(home, "kernel.json"), "utf8"));
  } catch (error) {
    if (["ENOENT", "ENOTDIR"].includes(errnoOf(error) ?? "") || error instanceof SyntaxError) {
      return undefined;
    }
    throw error;
  }
  if (!isStored(stored) || stored.id !== id) return undefined;
  const vmlinux = join(home, "vmlinux");
  if ((await sizeOf(vmlinux)) !== stored.sizeBytes) return undefined;
  const modules: string[] = [];
  for (const { file, sizeBytes } of stored.modules) {
    const path = join(home, "modules", file);
    if ((await sizeOf(path)) !== sizeBytes) return undefined;
    modules.push(path);
  }
  const { schema: _schema, sizeBytes: _size, modulesDisk: disk, ...rest } = stored;
  const modulesDisk = join(home, MODULES_DISK);
  const whole = disk !== undefined && (await sizeOf(modulesDisk)) === disk.sizeBytes;
  return { ...rest, vmlinux, modules, ...(whole ? { modulesDisk } : {}) };
}

/**
 * Give a stored kernel its disk of modules; call with the lock held.
 * @param file on the store's file system, synced; moved away
 * @returns the kernel as it is now
 */
export async function keepModulesDisk(dir: string, id: string, file: string): Promise<Kernel> {
  const home = join(dir, id);
  const description = join(home, "kernel.json");
  const stored = JSON.parse(await readFile(description, "utf8")) as StoredKernel;
  const { size } = await stat(file);
  await rename(file, join(home, MODULES_DISK));
  const text = `${JSON.stringify({ ...stored, modulesDisk: { sizeBytes: size } }, undefined, 2)}\n`;
  await writeFileAtomic(description, text, 0o644);
  const kernel = await readKernel(dir, id);
  if (kernel === undefined) throw new Error(`kernel ${id} vanished from ${dir}`);
  return kernel;
}

/** All whole kernels of the store, newest version first. */
export async function listKernels(dir: string): Promise<Kernel[]> {
  let names: string[];
  try {
    names = await readdir(dir);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return [];
    throw error;
  }
  const kernels: Kernel[] = [];
  for (const name of names) {
    const kernel = await readKernel(dir, name);
    if (kernel !== undefined) kernels.push(kernel);
  }
  return kernels.sort((a, b) => compareVersions(b.version, a.version) || (a.id < b.id ? -1 : 1));
}

/** Name of the kernel chosen by {@link selectKernel}; undefined: the default. */
export async function selectedKernelId(dir: string): Promise<string | undefined> {
  try {
    const value: unknown = JSON.parse(await readFile(join(dir, "selected.json"), "utf8"));
    const id = typeof value === "object" && value !== null && "id" in value ? value.id : undefined;
    return typeof id === "string" && idPattern.test(id) ? id : undefined;
  } catch (error) {
    // Not chosen yet, or a file that an editor has spoilt: both mean the default.
    if (errnoOf(error) === "ENOENT" || error instanceof SyntaxError) return undefined;
    throw error;
  }
}

/** A kernel that must be in the store. @throws ERR_KERNEL_NOT_FOUND */
async function requireKernel(dir: string, id: string): Promise<void> {
  if ((await readKernel(dir, id)) !== undefined) return;
  const known = (await listKernels(dir)).map((kernel) => kernel.id);
  throw new VmsanError({
    code: "ERR_KERNEL_NOT_FOUND",
    message: `No kernel ${id}`,
    why: `There is none of that name; known: ${known.join(", ") || "none"}.`,
    fix: "See `vmsan kernel ls`; add one with `vmsan kernel add FILE`.",
  });
}

/**
 * Choose the kernel of new VMs.
 * @param id a stored kernel, or `default` for vmsan's own choice
 * @throws ERR_KERNEL_NOT_FOUND
 */
export async function selectKernel(dir: string, id: string): Promise<void> {
  if (id === "default") {
    await rm(join(dir, "selected.json"), { force: true });
    return;
  }
  await requireKernel(dir, id);
  await writeFileAtomic(join(dir, "selected.json"), `${JSON.stringify({ id })}\n`, 0o644);
}

/**
 * Remove a kernel; whether a VM needs it is the caller's to know. One that was chosen is chosen
 * no longer.
 * @throws ERR_KERNEL_NOT_FOUND
 */
export async function removeKernel(dir: string, id: string): Promise<void> {
  await withKernelStore(dir, async (scratch) => {
    await requireKernel(dir, id);
    if ((await selectedKernelId(dir)) === id) await selectKernel(dir, "default");
    // Moved away first: at no time is there half a kernel under its name.
    await rename(join(dir, id), join(scratch, "removed"));
  });
}

/** Remove a writer's directory. */
async function removeScratch(path: string): Promise<void> {
  await rm(path, { recursive: true, force: true });
}

/**
 * Remove what killed writers left, downloads among it, unless somebody is writing.
 * @returns the names of what was removed
 */
export async function sweepKernels(dir: string): Promise<string[]> {
  return await sweepAbandoned(dir, removeScratch);
}

/**
 * Run `body` as the store's only writer, with an empty directory that is removed afterwards.
 * Leftovers of killed writers are removed first.
 */
export async function withKernelStore<T>(
  dir: string,
  body: (scratch: string) => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  await mkdir(dir, { recursive: true });
  return await withLock(
    join(dir, ".lock"),
    async () => {
      await removeAbandoned(dir, removeScratch);
      const scratch = temporarySibling(join(dir, "x"));
      await mkdir(scratch);
      try {
        return await body(scratch);
      } finally {
        await removeScratch(scratch);
      }
    },
    signal === undefined ? {} : { signal },
  );
}

/** A name after all content: the same kernel with other modules is another one. */
function contentLabel(sha256: string, modules: readonly KernelModule[]): string {
  if (modules.length === 0) return sha256.slice(0, 12);
  const hash = createHash("sha256").update(sha256);
  for (const { name, bytes } of modules) hash.update(`\0${name}\0${bytes.length}\0`).update(bytes);
  return hash.digest("hex").slice(0, 12);
}

/**
 * Put a kernel into the store, whole or not at all; call with the lock held.
 * One that is there already under the same name is replaced only when it is not whole.
 */
export async function storeKernel(
  dir: string,
  scratch: string,
  kernel: NewKernel,
): Promise<Kernel> {
  const sha256 = createHash("sha256").update(kernel.image.bytes).digest("hex");
  const label = kernel.packageVersion ?? contentLabel(sha256, kernel.modules);
  const id = `${kernel.version}_${label}`.replace(/[^A-Za-z0-9._+~-]/g, "-").slice(0, 128);
  const present = await readKernel(dir, id);
  if (present !== undefined && present.sha256 === sha256) return present;
  const staged = join(scratch, "kernel");
  try {
    await mkdir(join(staged, "modules"), { recursive: true });
    await writeFile(join(staged, "vmlinux"), kernel.image.bytes, { mode: 0o644, flush: true });
    const modules: StoredKernel["modules"] = [];
    for (const { name, bytes } of kernel.modules) {
      const file = `${name}.ko`;
      await writeFile(join(staged, "modules", file), bytes, { mode: 0o644, flush: true });
      modules.push({ file, sizeBytes: bytes.length });
    }
    const stored: StoredKernel = {
      schema: 1,
      id,
      version: kernel.version,
      arch: kernel.image.arch,
      pvh: kernel.image.pvh,
      origin: kernel.origin,
      source: kernel.source,
      ...(kernel.packageVersion === undefined ? {} : { packageVersion: kernel.packageVersion }),
      sha256,
      compression: kernel.image.compression,
      addedAt: new Date().toISOString(),
      sizeBytes: kernel.image.bytes.length,
      modules,
    };
    const text = `${JSON.stringify(stored, undefined, 2)}\n`;
    await writeFile(join(staged, "kernel.json"), text, { mode: 0o644, flush: true });
    await rm(join(dir, id), { recursive: true, force: true });
    await rename(staged, join(dir, id));
    await syncDirectory(dir);
  } catch (error) {
    throw new VmsanError(
      {
        code: "ERR_KERNEL_STORE",
        message: `Cannot keep the kernel ${id} in ${dir}`,
        why: messageOf(error),
        fix: "Check that the directory is writable and the disk has about 80 MB free.",
      },
      error,
    );
  }
  const result = await readKernel(dir, id);
  if (result === undefined) throw new Error(`kernel ${id} vanished from ${dir}`);
  return result;
}

/** Whether a stored kernel still has the content it came with. */
export async function verifyKernel(kernel: Kernel): Promise<boolean> {
  const bytes = await readFile(kernel.vmlinux);
  return createHash("sha256").update(bytes).digest("hex") === kernel.sha256;
}
