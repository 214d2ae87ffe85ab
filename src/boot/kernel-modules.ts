/**
 * Kernel modules that a guest needs before its disks are there: which, in what order, unpacked.
 * Dependencies are read from each module's own .modinfo section, because Debian's package
 * carries no modules.dep (depmod makes it when the package is installed) and depmod may be missing.
 */
import { readdir, readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { VmsanError, errnoOf } from "../model/errors.ts";
import type { Packing } from "../util/packing/packing.ts";
import { decompress } from "./kernel-unpack.ts";

/** Modules of which a guest cannot do without. */
const requiredModules = ["virtio_mmio", "virtio_blk", "ext4", "overlay"] as const;

/** Modules taken along when the kernel has them: one of the two channels, network, extras. */
const optionalModules = [
  "virtio_net",
  "virtio_console",
  "vmw_vsock_virtio_transport",
  "virtio_rng",
  "virtio_balloon",
] as const;

/** One module, ready for finit_module. */
export interface KernelModule {
  /** Name with underscores, as in /proc/modules. */
  name: string;
  /** Uncompressed ELF bytes. */
  bytes: Buffer;
}

const suffixes: Record<string, Packing> = {
  ".ko": "none",
  ".ko.xz": "xz",
  ".ko.zst": "zstd",
  ".ko.gz": "gzip",
};

/** A module's file. */
export interface ModuleFile {
  path: string;
  compression: Packing;
}

/** Module name of a file name (`virtio-rng.ko.xz` → `virtio_rng`) and its compression. */
function parseModuleFile(file: string): { name: string; compression: Packing } | undefined {
  const dot = file.indexOf(".ko");
  if (dot <= 0) return undefined;
  const compression = suffixes[file.slice(dot)];
  if (compression === undefined) return undefined;
  return { name: basename(file.slice(0, dot)).replaceAll("-", "_"), compression };
}

/** All modules below a /lib/modules/VERSION directory by name. */
export async function indexModules(dir: string): Promise<Map<string, ModuleFile>> {
  const index = new Map<string, ModuleFile>();
  for (const entry of await readdir(join(dir, "kernel"), { recursive: true })) {
    const parsed = parseModuleFile(entry);
    if (parsed !== undefined) {
      index.set(parsed.name, {
        path: join(dir, "kernel", entry),
        compression: parsed.compression,
      });
    }
  }
  return index;
}

/** Uncompressed bytes of a module. */
export async function readModule(file: ModuleFile, signal?: AbortSignal): Promise<Buffer> {
  return await decompress(await readFile(file.path), file.compression, file.path, signal);
}

/** Names of what is built into the kernel, from modules.builtin; empty when there is no such file. */
export async function builtinModules(dir: string): Promise<Set<string>> {
  let text: string;
  try {
    text = await readFile(join(dir, "modules.builtin"), "utf8");
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return new Set();
    throw error;
  }
  const names = text.split("\n").map((line) => parseModuleFile(line.trim())?.name);
  return new Set(names.filter((name) => name !== undefined));
}

/**
 * Values of a key in a module's .modinfo section.
 * @param bytes an uncompressed ELF64 little-endian module
 */
export function modinfo(bytes: Buffer, key: string): string[] {
  if (bytes.length < 64 || bytes.readUInt32BE(0) !== 0x7f454c46) return [];
  const table = Number(bytes.readBigUInt64LE(40));
  const size = bytes.readUInt16LE(58);
  const count = bytes.readUInt16LE(60);
  const names = bytes.readUInt16LE(62);
  if (size < 64 || table + size * count > bytes.length || names >= count) return [];
  const section = (index: number): { name: number; from: number; length: number } => {
    const at = table + index * size;
    return {
      name: bytes.readUInt32LE(at),
      from: Number(bytes.readBigUInt64LE(at + 24)),
      length: Number(bytes.readBigUInt64LE(at + 32)),
    };
  };
  const strings = section(names);
  const wanted = ".modinfo\0";
  for (let index = 0; index < count; index++) {
    const { name, from, length } = section(index);
    const at = strings.from + name;
    if (bytes.toString("latin1", at, at + wanted.length) !== wanted) continue;
    const lines = bytes.toString("utf8", from, from + length).split("\0");
    return lines.filter((line) => line.startsWith(`${key}=`)).map((l) => l.slice(key.length + 1));
  }
  return [];
}

/** Names of the modules that one needs directly, by its own .modinfo. */
export function dependenciesOf(bytes: Buffer): string[] {
  const names = modinfo(bytes, "depends").flatMap((value) => value.split(","));
  return names.filter((name) => name !== "").map((name) => name.replaceAll("-", "_"));
}

/** `uname -r` of the kernel whose modules a directory has; undefined when they do not say. */
export async function releaseOfModules(
  dir: string,
  signal?: AbortSignal,
): Promise<string | undefined> {
  const [first] = (await indexModules(dir)).values();
  if (first === undefined) return undefined;
  return modinfo(await readModule(first, signal), "vermagic")[0]?.split(" ", 1)[0];
}

/**
 * The modules a guest needs from a /lib/modules/VERSION directory, dependencies first.
 * Throws ERR_KERNEL_FEATURE when a required one is neither there nor built in.
 */
export async function collectModules(dir: string, signal?: AbortSignal): Promise<KernelModule[]> {
  const index = await indexModules(dir);
  const builtin = await builtinModules(dir);
  const done = new Map<string, KernelModule>();
  const visiting = new Set<string>();

  /** Depth first: what a module depends on comes before it. */
  const visit = async (name: string, required: boolean): Promise<void> => {
    if (done.has(name) || visiting.has(name) || builtin.has(name)) return;
    signal?.throwIfAborted();
    const found = index.get(name);
    if (found === undefined) {
      if (!required) return;
      throw new VmsanError({
        code: "ERR_KERNEL_FEATURE",
        message: `The kernel of ${dir} lacks ${name}`,
        why: "It is neither a module nor built in, and a guest cannot boot without it.",
        fix: "Use Debian's cloud kernel (`vmsan kernel use default`) or one with virtio and overlayfs.",
      });
    }
    visiting.add(name);
    const bytes = await readModule(found, signal);
    for (const need of dependenciesOf(bytes)) await visit(need, true);
    visiting.delete(name);
    done.set(name, { name, bytes });
  };
  for (const name of requiredModules) await visit(name, true);
  for (const name of optionalModules) await visit(name, false);
  if (
    !["virtio_console", "vmw_vsock_virtio_transport"].some((n) => done.has(n) || builtin.has(n))
  ) {
    throw new VmsanError({
      code: "ERR_KERNEL_FEATURE",
      message: `The kernel of ${dir} has no channel to the host`,
      why: "It has neither virtio_console nor vmw_vsock_virtio_transport.",
      fix: "Use Debian's cloud kernel (`vmsan kernel use default`).",
    });
  }
  return [...done.values()];
}
