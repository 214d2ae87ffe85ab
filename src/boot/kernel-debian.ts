/**
 * Debian's cloud kernel: from the host's /boot when it is installed, else its package,
 * downloaded by apt as any user and unpacked aside. Nothing on the host is changed.
 */
import { access, constants, mkdir, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { VmsanError, errnoOf, messageOf } from "../model/errors.ts";
import type { ProgressSink } from "../model/progress.ts";
import { run, runOk } from "../util/run.ts";
import type { KernelArch } from "./kernel-unpack.ts";

/** A distribution's kernel as files: packed kernel and its modules. */
export interface KernelFiles {
  /** Path of the vmlinuz. */
  vmlinuz: string;
  /** /lib/modules/VERSION directory of it. */
  modulesDir: string;
  /** `uname -r` of it. */
  release: string;
  /** Version of the Debian package, when known. */
  packageVersion?: string;
  /** Where it comes from, for people. */
  source: string;
}

/** Debian's names of the architectures. */
const debianArch: Record<KernelArch, string> = { x86_64: "amd64", aarch64: "arm64" };

/** Compare by runs of digits as numbers, everything else as text: 6.1.9 < 6.1.10. */
export function compareVersions(a: string, b: string): number {
  return a.localeCompare(b, "en", { numeric: true });
}

/** Names in a directory; none when it does not exist or may not be read. */
async function namesIn(dir: string): Promise<string[]> {
  try {
    return await readdir(dir);
  } catch (error) {
    if (["ENOENT", "EACCES", "ENOTDIR"].includes(errnoOf(error) ?? "")) return [];
    throw error;
  }
}

/** Whether a file can be read. */
async function isReadable(path: string): Promise<boolean> {
  return await access(path, constants.R_OK).then(
    () => true,
    () => false,
  );
}

/** Version of an installed Debian package; undefined when dpkg does not know. */
async function installedVersion(name: string, signal?: AbortSignal): Promise<string | undefined> {
  try {
    const abort = signal === undefined ? {} : { signal };
    const result = await run("dpkg-query", ["-W", "-f", "${Version}", name], abort);
    return result.code === 0 && result.stdout !== "" ? result.stdout : undefined;
  } catch (error) {
    if (error instanceof VmsanError && error.code === "ERR_SETUP_MISSING_BINARY") return undefined;
    throw error;
  }
}

/**
 * Newest cloud kernel below a root directory with its modules and readable by us.
 * @param root `/`, or where a package was unpacked
 */
async function findCloudKernel(root: string, arch: KernelArch): Promise<KernelFiles | undefined> {
  const pattern = new RegExp(`^vmlinuz-(.+-cloud-${debianArch[arch]})$`);
  const releases = (await namesIn(join(root, "boot")))
    .map((name) => pattern.exec(name)?.[1])
    .filter((release) => release !== undefined)
    .sort((a, b) => compareVersions(b, a));
  for (const release of releases) {
    const vmlinuz = join(root, "boot", `vmlinuz-${release}`);
    if (!(await isReadable(vmlinuz))) continue;
    for (const lib of ["lib/modules", "usr/lib/modules"]) {
      const modulesDir = join(root, lib, release);
      if (await isReadable(join(modulesDir, "kernel"))) {
        return { vmlinuz, modulesDir, release, source: vmlinuz };
      }
    }
  }
  return undefined;
}

/** The cloud kernel installed on this host, if there is one. */
export async function installedCloudKernel(
  arch: KernelArch,
  signal?: AbortSignal,
): Promise<KernelFiles | undefined> {
  const found = await findCloudKernel("/", arch);
  if (found === undefined) return undefined;
  const packageVersion = await installedVersion(`linux-image-${found.release}`, signal);
  return { ...found, ...(packageVersion === undefined ? {} : { packageVersion }) };
}

/** Options that give apt lists and caches of its own, so that any user may update them. */
async function privateApt(dir: string, arch: KernelArch): Promise<string[]> {
  const state = join(dir, "state");
  const cache = join(dir, "cache");
  await mkdir(join(state, "lists", "partial"), { recursive: true });
  await mkdir(join(cache, "archives", "partial"), { recursive: true });
  await writeFile(join(dir, "status"), "");
  return [
    `Dir::State=${state}`,
    `Dir::State::status=${join(dir, "status")}`,
    `Dir::Cache=${cache}`,
    `APT::Architecture=${debianArch[arch]}`,
    `APT::Architectures=${debianArch[arch]}`,
    "APT::Update::Post-Invoke=",
    "APT::Update::Post-Invoke-Success=",
    "Acquire::Languages=none",
  ].flatMap((option) => ["-o", option]);
}

/** Name of the package that the metapackage stands for now, e.g. linux-image-6.1.0-56-cloud-amd64. */
async function imagePackage(
  arch: KernelArch,
  options: readonly string[],
  signal?: AbortSignal,
): Promise<string | undefined> {
  const meta = `linux-image-cloud-${debianArch[arch]}`;
  const result = await run("apt-cache", [...options, "depends", meta], {
    env: { ...process.env, LC_ALL: "C" },
    ...(signal === undefined ? {} : { signal }),
  });
  return /^\s*Depends:\s*(linux-image-[\w.+~-]+)/m.exec(result.stdout)?.[1];
}

/** Download a package into `dir` and say which file it is; the reason why not as text. */
async function download(
  name: string,
  dir: string,
  options: readonly string[],
  signal?: AbortSignal,
): Promise<{ deb: string } | { why: string }> {
  const result = await run(
    "apt-get",
    // Without this apt, run by root, tries to write as the user _apt and warns that it cannot.
    [...options, "-o", "APT::Sandbox::User=root", "-q", "download", name],
    { cwd: dir, ...(signal === undefined ? {} : { signal }) },
  );
  const deb = (await namesIn(dir)).find((file) => file.endsWith(".deb"));
  if (result.code === 0 && deb !== undefined) return { deb: join(dir, deb) };
  return { why: result.stderr.trim().slice(-1500) || `apt-get ended with ${result.code}` };
}

/**
 * Download and unpack Debian's cloud kernel below `dir` (which the caller removes).
 * apt verifies the package against the signed lists. The host's own lists are tried first;
 * when they are missing or stale, fresh ones are fetched aside.
 */
export async function downloadCloudKernel(
  dir: string,
  arch: KernelArch,
  options: { signal?: AbortSignal; progress?: ProgressSink } = {},
): Promise<KernelFiles> {
  const { signal, progress } = options;
  const abort = signal === undefined ? {} : { signal };
  const packages = join(dir, "packages");
  await mkdir(packages, { recursive: true });
  let why = "apt knows no such package.";
  let deb: string | undefined;
  try {
    for (const attempt of ["host", "private"] as const) {
      let apt: string[] = [];
      if (attempt === "private") {
        progress?.({ phase: "setup", item: "kernel", message: "fetching package lists" });
        apt = await privateApt(join(dir, "apt"), arch);
        // A single unreachable source is no failure: what counts is whether the package is found.
        await run("apt-get", [...apt, "-o", "APT::Sandbox::User=root", "-q", "update"], abort);
      }
      const name = await imagePackage(arch, apt, signal);
      if (name === undefined) continue;
      progress?.({ phase: "setup", item: "kernel", message: `downloading ${name}` });
      const got = await download(name, packages, apt, signal);
      if ("deb" in got) {
        deb = got.deb;
        break;
      }
      why = got.why;
    }
  } catch (error) {
    if (signal?.aborted === true) throw signal.reason;
    why = messageOf(error);
  }
  if (deb === undefined) {
    throw new VmsanError({
      code: "ERR_KERNEL_MISSING",
      message: `Cannot get Debian's cloud kernel for ${arch}`,
      why,
      fix: "Install linux-image-cloud-amd64 (arm64), or add any kernel with `vmsan kernel add FILE --modules DIR`.",
    });
  }
  const root = join(dir, "root");
  progress?.({ phase: "setup", item: "kernel", message: "unpacking the kernel" });
  await runOk("dpkg-deb", ["-x", deb, root], "ERR_KERNEL_UNPACK", abort);
  const found = await findCloudKernel(root, arch);
  if (found === undefined) {
    throw new VmsanError({
      code: "ERR_KERNEL_FORMAT",
      message: `Cannot use the package ${deb}`,
      why: "It holds no cloud kernel with modules.",
      fix: "Report this: Debian's package has changed its layout.",
    });
  }
  const version = await runOk("dpkg-deb", ["-f", deb, "Version"], "ERR_KERNEL_UNPACK", abort);
  return { ...found, packageVersion: version.trim(), source: deb.slice(packages.length + 1) };
}

/** `uname -r` from the banner in an uncompressed kernel; undefined when it has none. */
export function releaseOfKernel(bytes: Buffer): string | undefined {
  const banner = "Linux version ";
  const at = bytes.indexOf(banner);
  if (at < 0) return undefined;
  return /^\S+/.exec(bytes.toString("latin1", at + banner.length, at + banner.length + 128))?.[0];
}
