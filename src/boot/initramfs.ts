/**
 * The initramfs of a guest: the agent as /init, and the modules it loads first.
 * Uncompressed, because compressing gains nothing; deterministic, so that it is cached by content.
 */
import { createHash } from "node:crypto";
import { mkdir, readFile, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { VmsanError, errnoOf } from "../model/errors.ts";
import { writeFileAtomic } from "../util/atomic.ts";
import { withLock } from "../util/lock.ts";
import { cpioType, encodeCpio, type CpioEntry } from "./cpio.ts";
import type { Kernel } from "./kernel-store.ts";
import { detectPacking } from "../util/packing/packing.ts";
import { decompress } from "./kernel-unpack.ts";

/** Part of every cache key: raised when the layout of the archive changes. */
const layoutVersion = 1;

/** What {@link assembleInitramfs} takes. */
export interface InitramfsParts {
  /** Path of the agent's static binary. */
  agent: string;
  /** Paths of modules in load order; .xz, .zst and .gz are unpacked. */
  modules: readonly string[];
  /** Path of the archive to write, replaced atomically. */
  output: string;
  signal?: AbortSignal;
}

/** Refuse an agent that cannot be the first process: there is no libc in an initramfs. */
function checkAgent(bytes: Buffer, path: string): void {
  const problem = whyNotStatic(bytes);
  if (problem === undefined) return;
  throw new VmsanError({
    code: "ERR_INITRAMFS_AGENT",
    message: `Cannot use ${path} as the guest agent`,
    why: problem,
    fix: "Build it with CGO_ENABLED=0 (scripts/build.sh does).",
  });
}

/** Why an ELF file needs more than itself to run; undefined when it does not. */
function whyNotStatic(bytes: Buffer): string | undefined {
  if (bytes.length < 64 || bytes.readUInt32BE(0) !== 0x7f454c46) return "It is not an ELF file.";
  const offset = Number(bytes.readBigUInt64LE(32));
  const [size, count] = [bytes.readUInt16LE(54), bytes.readUInt16LE(56)];
  if (size < 56 || offset + size * count > bytes.length) return "It is cut short.";
  for (let index = 0; index < count; index++) {
    // PT_INTERP names a dynamic linker.
    if (bytes.readUInt32LE(offset + index * size) === 3) return "It is dynamically linked.";
  }
  return undefined;
}

/** An entry of the archive with the usual modes. */
function file(name: string, data: Uint8Array, permissions = 0o644): CpioEntry {
  return { name, mode: cpioType.file | permissions, data };
}

/** Name of a module in the archive: without its compression. */
function moduleName(path: string): string {
  return basename(path).replace(/\.(xz|zst|gz)$/, "");
}

/**
 * Write an initramfs: /init, /dev/console, /modules/*.ko and /modules/load, which lists the
 * modules' paths in the order in which they are to be loaded, one a line.
 */
export async function assembleInitramfs(parts: InitramfsParts): Promise<void> {
  const { agent, modules, output, signal } = parts;
  const binary = await readFile(agent);
  checkAgent(binary, agent);
  const entries: CpioEntry[] = [
    { name: "dev", mode: cpioType.directory | 0o755 },
    // The kernel opens it as the first process's standard streams before anything is mounted.
    { name: "dev/console", mode: cpioType.charDevice | 0o600, device: { major: 5, minor: 1 } },
    file("init", binary, 0o755),
    { name: "modules", mode: cpioType.directory | 0o755 },
  ];
  for (const path of modules) {
    const bytes = await readFile(path);
    const unpacked = await decompress(bytes, detectPacking(bytes), path, signal);
    entries.push(file(`modules/${moduleName(path)}`, unpacked));
  }
  const load = modules.map((path) => `/modules/${moduleName(path)}\n`).join("");
  entries.push(file("modules/load", Buffer.from(load)));
  signal?.throwIfAborted();
  await writeFileAtomic(output, encodeCpio(entries), 0o644);
}

/** A file's bytes; undefined when there is no such file. */
async function bytesOf(path: string): Promise<Buffer | undefined> {
  try {
    return await readFile(path);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

/** Digests of files that this process has read, each with what told its file from later ones. */
const digests = new Map<string, { stamp: string; digest: string }>();

/**
 * A file's digest; read once for as long as nothing about the file changes. Every start asks for those
 * of the agent and its archive, which are 20 MB together.
 */
async function digestOf(path: string): Promise<string> {
  const { dev, ino, size, mtimeNs, ctimeNs } = await stat(path, { bigint: true });
  const stamp = [dev, ino, size, mtimeNs, ctimeNs].join(" ");
  const known = digests.get(path);
  if (known?.stamp === stamp) return known.digest;
  const digest = sha256(await readFile(path));
  digests.set(path, { stamp, digest });
  return digest;
}

/** Is an archive what the sum beside it says? One that is damaged would be found out by a guest's panic. */
async function isWhole(archive: string, sum: string): Promise<boolean> {
  const said = await bytesOf(sum);
  if (said === undefined) return false;
  try {
    return said.toString() === (await digestOf(archive));
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return false;
    throw error;
  }
}

/** What {@link ensureInitramfs} takes. */
export interface EnsureInitramfsOptions {
  /** Directory of the cache. */
  dir: string;
  /** Path of the agent's static binary. */
  agent: string;
  kernel: Pick<Kernel, "modules">;
  signal?: AbortSignal;
}

/**
 * The initramfs for this agent and this kernel: from the cache by their contents, else made.
 * @returns its absolute path
 */
export async function ensureInitramfs(options: EnsureInitramfsOptions): Promise<string> {
  const { dir, agent, kernel, signal } = options;
  const key = createHash("sha256").update(`${layoutVersion}\n`);
  for (const path of [agent, ...kernel.modules]) {
    const digest = await digestOf(path);
    key.update(`${path === agent ? "init" : moduleName(path)} ${digest}\n`);
  }
  const name = `initramfs-${key.digest("hex").slice(0, 32)}`;
  const output = join(dir, `${name}.cpio`);
  const sum = join(dir, `${name}.sha256`);
  await mkdir(dir, { recursive: true });
  await withLock(
    join(dir, ".initramfs.lock"),
    async () => {
      if (await isWhole(output, sum)) return;
      const abort = signal === undefined ? {} : { signal };
      await assembleInitramfs({ agent, modules: kernel.modules, output, ...abort });
      await writeFileAtomic(sum, sha256(await readFile(output)), 0o644);
    },
    signal === undefined ? {} : { signal },
  );
  return output;
}
