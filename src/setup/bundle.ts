/**
 * Bundles for hosts without a network: one tar archive with kernels and made runtimes of a
 * VMSAN_DIR, and first in it `bundle.json` with size and SHA-256 of every file. Nothing of a
 * bundle is used before its file has been checked against that.
 */
import { createHash } from "node:crypto";
import { createReadStream, createWriteStream } from "node:fs";
import {
  lstat,
  mkdir,
  mkdtemp,
  readFile,
  readdir,
  rename,
  rm,
  stat,
  writeFile,
} from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import { listKernels, hostArch } from "../boot/kernel.ts";
import { readKernel, withKernelStore } from "../boot/kernel-store.ts";
import { VmsanError, errnoOf, messageOf } from "../model/errors.ts";
import type { ProgressSink } from "../model/progress.ts";
import { ensureRuntime, importRuntime, type Runtime } from "../runtimes/index.ts";
import { temporarySibling } from "../util/atomic.ts";
import { packageVersion } from "../util/package.ts";
import type { Layout } from "../util/paths.ts";
import { runOk } from "../util/run.ts";

const manifestName = "bundle.json";
const codeOf = { code: "ERR_SETUP_BUNDLE" } as const;

/** A file of a bundle. */
interface BundleFile {
  path: string;
  size: number;
  sha256: string;
}

/** bundle.json. */
interface BundleManifest {
  schema: 1;
  vmsan: string;
  arch: string;
  createdAt: string;
  /** Kernel IDs and runtime names, by their directories. */
  kernels: string[];
  runtimes: { name: string; dir: string }[];
  files: BundleFile[];
}

/** An unusable bundle. */
function bundleError(from: string, why: string, cause?: unknown): VmsanError {
  return new VmsanError(
    {
      ...codeOf,
      message: `Cannot use the bundle ${from}`,
      why,
      fix: "Copy it again, or make it again with `vmsan setup --bundle FILE`.",
    },
    cause,
  );
}

const onePart = "[A-Za-z0-9][A-Za-z0-9._+~-]*";
const filePattern = new RegExp(`^(kernels|runtimes)(/${onePart}){2,5}$`);
const dirPattern = new RegExp(`^${onePart}$`);

/** Check what bundle.json says; a bundle may come from anywhere. */
function parseManifest(from: string, text: string): BundleManifest {
  let value: Partial<BundleManifest>;
  try {
    value = JSON.parse(text) as Partial<BundleManifest>;
  } catch (error) {
    throw bundleError(from, `${manifestName}: ${messageOf(error)}`, error);
  }
  const { files, kernels, runtimes } = value;
  const sound =
    value.schema === 1 &&
    Array.isArray(files) &&
    files.length <= 10_000 &&
    files.every(
      (file) =>
        typeof file.path === "string" &&
        filePattern.test(file.path) &&
        Number.isSafeInteger(file.size) &&
        typeof file.sha256 === "string",
    ) &&
    Array.isArray(kernels) &&
    kernels.every((id) => typeof id === "string" && dirPattern.test(id)) &&
    Array.isArray(runtimes) &&
    runtimes.every(({ name, dir }) => typeof name === "string" && dirPattern.test(dir));
  if (!sound) throw bundleError(from, `${manifestName} is not one of this version.`);
  if (value.arch !== hostArch()) {
    throw bundleError(from, `It is for ${String(value.arch)}, this machine is ${hostArch()}.`);
  }
  return value as BundleManifest;
}

/** Copy a file and return the SHA-256 of what was copied; without `to` only the latter. */
async function hashFile(path: string, to?: string, signal?: AbortSignal): Promise<string> {
  const hash = createHash("sha256");
  const tap = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      hash.update(chunk);
      done(null, to === undefined ? undefined : chunk);
    },
  });
  const source = createReadStream(path, { highWaterMark: 1 << 20 });
  const abort = signal === undefined ? {} : { signal };
  if (to === undefined) {
    tap.resume();
    await pipeline(source, tap, abort);
  } else {
    await pipeline(source, tap, createWriteStream(to, { flags: "wx", flush: true }), abort);
  }
  return hash.digest("hex");
}

/** Regular files below a directory, relative to `root`. */
async function filesBelow(root: string, dir: string): Promise<string[]> {
  const entries = await readdir(join(root, dir), { withFileTypes: true });
  const nested = await Promise.all(
    entries.map(async (entry) => {
      const path = join(dir, entry.name);
      return entry.isDirectory() ? await filesBelow(root, path) : [path];
    }),
  );
  return nested.flat().sort((a, b) => (a < b ? -1 : 1));
}

/** What {@link writeBundle} takes. */
export interface WriteBundleOptions {
  layout: Layout;
  catalogue: Record<string, Runtime>;
  /** Runtimes to put in; they must have been made. */
  runtimes: readonly string[];
  /** Archive to write; replaced when it exists. */
  file: string;
  signal?: AbortSignal;
  progress?: ProgressSink;
}

/**
 * Write a bundle of all kernels and of these runtimes.
 * @returns the archive's size in bytes
 * @throws ERR_RUNTIME_MISSING when a runtime has not been made yet
 */
export async function writeBundle(options: WriteBundleOptions): Promise<number> {
  const { layout, catalogue, file, signal } = options;
  const runtimes: BundleManifest["runtimes"] = [];
  for (const name of options.runtimes) {
    const ready = await ensureRuntime({ dir: layout.runtimes, name, catalogue, offline: true });
    // A runtime that is a registry's image is pulled where it is used.
    if (ready.built === undefined || ready.source.kind !== "oci") continue;
    runtimes.push({ name, dir: basename(ready.source.path) });
  }
  const kernels = (await listKernels(layout.kernels)).map(({ id }) => id);
  const dirs = [
    ...kernels.map((id) => join("kernels", id)),
    ...runtimes.map(({ dir }) => join("runtimes", dir)),
  ];
  const files: BundleFile[] = [];
  for (const path of (await Promise.all(dirs.map((dir) => filesBelow(layout.root, dir)))).flat()) {
    options.progress?.({ phase: "setup", item: "bundle", message: path });
    const absolute = join(layout.root, path);
    files.push({
      path,
      size: (await stat(absolute)).size,
      sha256: await hashFile(absolute, undefined, signal),
    });
  }
  const manifest: BundleManifest = {
    schema: 1,
    vmsan: packageVersion(),
    arch: hostArch(),
    createdAt: new Date().toISOString(),
    kernels,
    runtimes,
    files,
  };
  const scratch = await mkdtemp(join(layout.root, ".tmp-bundle-"));
  const aside = temporarySibling(resolve(file));
  try {
    await writeFile(join(scratch, manifestName), `${JSON.stringify(manifest, null, 1)}\n`);
    const args = [
      "--format=gnu",
      "--owner=0",
      "--group=0",
      "--numeric-owner",
      "--mode=u=rwX,go=rX",
    ];
    args.push("-cf", aside, "-C", scratch, manifestName, "-C", layout.root);
    args.push("--verbatim-files-from", "--null", "-T", "-");
    await mkdir(dirname(aside), { recursive: true });
    await runOk("tar", args, codeOf.code, {
      input: files.map(({ path }) => path).join("\0"),
      ...(signal === undefined ? {} : { signal }),
    });
    await rename(aside, file);
    return (await stat(file)).size;
  } finally {
    await rm(scratch, { recursive: true, force: true });
    await rm(aside, { force: true });
  }
}

/** What {@link readBundle} takes. */
export interface ReadBundleOptions {
  layout: Layout;
  catalogue: Record<string, Runtime>;
  /** The archive, or a directory that it was unpacked into. */
  from: string;
  signal?: AbortSignal;
  progress?: ProgressSink;
}

/** Copy a directory of the bundle to `to`, checking each file. */
async function takeDirectory(
  options: ReadBundleOptions,
  unpacked: string,
  manifest: BundleManifest,
  dir: string,
  to: string,
): Promise<void> {
  for (const file of manifest.files.filter(({ path }) => path.startsWith(`${dir}/`))) {
    const source = join(unpacked, file.path);
    const target = join(to, file.path.slice(dir.length + 1));
    options.progress?.({ phase: "setup", item: "bundle", message: file.path });
    let found: string;
    try {
      const there = await lstat(source);
      if (!there.isFile() || there.size !== file.size) {
        throw bundleError(options.from, `${file.path} has not the size that was noted.`);
      }
      await mkdir(dirname(target), { recursive: true });
      found = await hashFile(source, target, options.signal);
    } catch (error) {
      if (errnoOf(error) !== "ENOENT") throw error;
      throw bundleError(options.from, `${file.path} is missing.`, error);
    }
    if (found !== file.sha256) {
      throw bundleError(options.from, `${file.path} has another checksum than was noted.`);
    }
  }
}

/**
 * Take from a bundle what is not here yet.
 * @throws ERR_SETUP_BUNDLE; what was taken before stays, each whole
 */
export async function readBundle(options: ReadBundleOptions): Promise<void> {
  const { layout, catalogue, from, signal } = options;
  await mkdir(layout.root, { recursive: true, mode: 0o700 });
  const scratch = await mkdtemp(join(layout.root, ".tmp-bundle-"));
  try {
    const unpacked = await unpack(from, scratch, signal);
    let text: string;
    try {
      text = await readFile(join(unpacked, manifestName), "utf8");
    } catch (error) {
      throw bundleError(from, `It has no ${manifestName}: ${messageOf(error)}`, error);
    }
    const manifest = parseManifest(from, text);
    for (const id of manifest.kernels) {
      if ((await readKernel(layout.kernels, id)) !== undefined) continue;
      await withKernelStore(
        layout.kernels,
        async (staging) => {
          const staged = join(staging, "kernel");
          await takeDirectory(options, unpacked, manifest, join("kernels", id), staged);
          await rm(join(layout.kernels, id), { recursive: true, force: true });
          await rename(staged, join(layout.kernels, id));
        },
        signal,
      );
    }
    for (const { name, dir } of manifest.runtimes) {
      if (!Object.hasOwn(catalogue, name)) continue;
      const staged = join(scratch, "runtimes", dir);
      await takeDirectory(options, unpacked, manifest, join("runtimes", dir), staged);
      const abort = signal === undefined ? {} : { signal };
      await mkdir(layout.runtimes, { recursive: true });
      await importRuntime({ dir: layout.runtimes, name, catalogue, from: staged, ...abort });
    }
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

/** The bundle as a directory: itself, or unpacked below `scratch`. */
async function unpack(from: string, scratch: string, signal?: AbortSignal): Promise<string> {
  let isDirectory: boolean;
  try {
    isDirectory = (await stat(from)).isDirectory();
  } catch (error) {
    throw bundleError(from, messageOf(error), error);
  }
  if (isDirectory) return from;
  const to = join(scratch, "unpacked");
  await mkdir(to);
  const args = ["-xf", from, "-C", to, "--no-same-owner", "--no-same-permissions"];
  try {
    await runOk("tar", args, codeOf.code, signal === undefined ? {} : { signal });
  } catch (error) {
    signal?.throwIfAborted();
    const why = error instanceof VmsanError ? (error.why ?? error.message) : messageOf(error);
    if (/No space left/.test(why)) {
      throw new VmsanError({
        code: "ERR_DISK_FULL",
        message: `Cannot unpack the bundle ${from}`,
        why,
        fix: "It needs twice its size free in VMSAN_DIR while it is taken over.",
      });
    }
    throw bundleError(from, why, error);
  }
  return to;
}
