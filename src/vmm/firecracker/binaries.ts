/**
 * Firecracker's programs: found and checked, or fetched as a pinned release. A release is the
 * archive `firecracker-vVERSION-ARCH.tgz` with `release-vVERSION-ARCH/firecracker-vVERSION-ARCH`
 * and the jailer of the same kind in it.
 */
import { createHash } from "node:crypto";
import { copyFile, chmod, mkdir, readFile, realpath, rename, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { VmsanError, messageOf } from "../../model/errors.ts";
import type { ProgressSink } from "../../model/progress.ts";
import { temporarySibling } from "../../util/atomic.ts";
import { run, runOk } from "../../util/run.ts";
import { findProgram } from "../launch.ts";

/** Oldest release that this driver speaks to. */
const oldestVersion = "1.10.0";
/** The release that `vmsan setup` fetches unless told otherwise. */
export const pinnedVersion = "1.16.1";
/** Where releases are fetched from unless told otherwise. */
const defaultReleaseBase = "https://github.com/firecracker-microvm/firecracker/releases/download";

/** Firecracker and its jailer on this host. */
export interface FirecrackerPrograms {
  /** Absolute path with links resolved: the jail's directory is named after it. */
  firecracker: string;
  /** Undefined when there is none: then only without root. */
  jailer?: string;
  /** `1.16.1`. */
  version: string;
}

/** Why the programs cannot be used. */
export interface ProgramsProblem {
  reason: string;
  fix: string;
}

const setupFix = "Run `vmsan setup`, or give the programs' directory in PATH.";

/** Whether version `a` is older than `b`, by their numbers. */
export function isOlder(a: string, b: string): boolean {
  const [left, right] = [a, b].map((text) => text.split(".").map((part) => Number.parseInt(part)));
  for (let index = 0; index < 3; index++) {
    const difference = (left?.[index] ?? 0) - (right?.[index] ?? 0);
    if (difference !== 0) return difference < 0;
  }
  return false;
}

/** Version that a program prints on its first line; what follows may be log lines. */
async function versionOf(program: string, name: string): Promise<string | undefined> {
  const result = await run(program, ["--version"], { timeoutMs: 10_000, maxOutput: 65_536 });
  const [first = ""] = result.stdout.split("\n");
  return new RegExp(`^${name} v(\\d+\\.\\d+\\.\\d+\\S*)`, "i").exec(first.trim())?.[1];
}

/** A program by path or name: as given, beside the other one, in `dir`, in PATH. */
async function locate(
  given: string | undefined,
  name: string,
  dirs: readonly string[],
): Promise<string | undefined> {
  if (given !== undefined) return await findProgram(given);
  for (const dir of dirs) {
    const found = await findProgram(join(dir, name));
    if (found !== undefined) return found;
  }
  return await findProgram(name);
}

/**
 * Find Firecracker and its jailer and check that they can be used.
 * @param options paths of the programs, and the directory where `vmsan setup` puts them
 */
export async function findFirecracker(options: {
  firecracker?: string;
  jailer?: string;
  binDir?: string;
}): Promise<FirecrackerPrograms | ProgramsProblem> {
  const dirs = options.binDir === undefined ? [] : [options.binDir];
  const found = await locate(options.firecracker, "firecracker", dirs);
  if (found === undefined) {
    return { reason: `There is no ${options.firecracker ?? "firecracker"}.`, fix: setupFix };
  }
  const firecracker = await realpath(found);
  let version: string | undefined;
  try {
    version = await versionOf(firecracker, "Firecracker");
  } catch (error) {
    return { reason: `${firecracker} does not run: ${messageOf(error)}`, fix: setupFix };
  }
  if (version === undefined) {
    return { reason: `${firecracker} does not say that it is Firecracker.`, fix: setupFix };
  }
  if (isOlder(version, oldestVersion)) {
    return {
      reason: `${firecracker} is version ${version}; ${oldestVersion} or later is needed.`,
      fix: setupFix,
    };
  }
  const jailer = await locate(options.jailer, "jailer", [dirname(found), dirname(firecracker)]);
  if (jailer === undefined && options.jailer !== undefined) {
    return { reason: `There is no ${options.jailer}.`, fix: setupFix };
  }
  return { firecracker, version, ...(jailer === undefined ? {} : { jailer }) };
}

/** What {@link provisionFirecracker} takes. */
export interface ProvisionOptions {
  /** Where the programs go, e.g. VMSAN_DIR/bin. */
  binDir: string;
  arch: "x86_64" | "aarch64";
  /** Default {@link pinnedVersion}. */
  version?: string;
  /** `https://…` or `file://…` address or directory that holds `vVERSION/ARCHIVE`. */
  base?: string;
  /** Expected SHA-256 of the archive; default: the one in `ARCHIVE.sha256.txt` beside it. */
  sha256?: string;
  signal?: AbortSignal;
  progress?: ProgressSink;
}

/** Most bytes of a release's archive; 1.16 has 5 MB without its debug files. */
const maxArchive = 200 << 20;

/** A failed provisioning. */
function provisionError(address: string, why: string, cause?: unknown): VmsanError {
  return new VmsanError(
    {
      code: "ERR_SETUP_FIRECRACKER",
      message: `Cannot get Firecracker from ${address}`,
      why,
      fix: "Check the address, or install firecracker and jailer by hand and give their paths.",
    },
    cause,
  );
}

/** Bytes behind an http(s) or file address, at most `limit`. */
async function fetchBytes(address: string, limit: number, signal?: AbortSignal): Promise<Buffer> {
  if (address.startsWith("file:")) {
    const url = new URL(address);
    const { size } = await stat(url);
    if (size > limit) throw new Error(`it has more than ${limit} bytes`);
    return await readFile(url);
  }
  const response = await fetch(address, signal === undefined ? {} : { signal });
  if (!response.ok) throw new Error(`the server answered ${response.status}`);
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const part of response.body ?? []) {
    const bytes = part as Uint8Array;
    size += bytes.length;
    if (size > limit) throw new Error(`it has more than ${limit} bytes`);
    parts.push(bytes);
  }
  return Buffer.concat(parts);
}

/**
 * Fetch a release, check its sum, and put both programs into `binDir`, whole or not at all.
 * Throws ERR_SETUP_FIRECRACKER.
 */
export async function provisionFirecracker(
  options: ProvisionOptions,
): Promise<FirecrackerPrograms> {
  const { binDir, arch, signal, progress } = options;
  const version = options.version ?? pinnedVersion;
  const given = options.base ?? defaultReleaseBase;
  const base = given.startsWith("/") ? pathToFileURL(given).href : given;
  const archive = `firecracker-v${version}-${arch}.tgz`;
  const address = `${base.replace(/\/$/, "")}/v${version}/${archive}`;
  const scratch = temporarySibling(join(binDir, "x"));
  try {
    progress?.({ phase: "setup", item: "firecracker", message: `fetching ${address}` });
    const bytes = await fetchBytes(address, maxArchive, signal);
    const sum = createHash("sha256").update(bytes).digest("hex");
    const expected =
      options.sha256 ??
      (await fetchBytes(`${address}.sha256.txt`, 4096, signal)).toString("utf8").split(/\s/)[0];
    if (sum !== expected) throw new Error(`its SHA-256 is ${sum}, expected ${expected}`);
    await mkdir(scratch, { recursive: true });
    const abort = signal === undefined ? {} : { signal };
    await runOk("tar", ["-xzf", "-", "-C", scratch], "ERR_SETUP_FIRECRACKER", {
      input: bytes,
      ...abort,
    });
    for (const name of ["jailer", "firecracker"]) {
      const from = join(scratch, `release-v${version}-${arch}`, `${name}-v${version}-${arch}`);
      const aside = join(scratch, name);
      await copyFile(from, aside);
      await chmod(aside, 0o755);
      await rename(aside, join(binDir, name));
    }
  } catch (error) {
    if (signal?.aborted === true) throw signal.reason;
    throw provisionError(address, messageOf(error), error);
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
  const found = await findFirecracker({ binDir });
  if ("reason" in found) throw provisionError(address, found.reason);
  return found;
}
