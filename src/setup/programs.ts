/** Programs that vmsan runs and distributions bring: which are missing, and installing them. */
import { VmsanError } from "../model/errors.ts";
import type { ProgressSink } from "../model/progress.ts";
import { qemuPackage, qemuProgram } from "../doctor/checks-vmm.ts";
import { run } from "../util/run.ts";
import { which } from "../util/which.ts";

/** A program, the Debian package that has it, and what it is for. */
export interface Program {
  program: string;
  package: string;
  why: string;
}

/** What needs which programs. */
export interface ProgramNeeds {
  /** An image is to be made from Debian's packages. */
  debianImages: boolean;
  /** An image is to be made from npm's packages. */
  nodeImages: boolean;
  /** VMs are run by root (default: this process is root's). */
  root?: boolean;
}

/** All programs for these needs. */
export function programsFor(needs: ProgramNeeds): Program[] {
  const root = needs.root ?? process.getuid?.() === 0;
  const list: Program[] = [
    {
      program: qemuProgram,
      package: qemuPackage,
      why: "runs VMs where Firecracker and KVM cannot",
    },
  ];
  if (needs.debianImages) {
    list.push(
      { program: "mmdebstrap", package: "mmdebstrap", why: "makes the base image from packages" },
      { program: "fakechroot", package: "fakechroot", why: "without root or mounts" },
      { program: "fakeroot", package: "fakeroot", why: "and with the right file owners" },
    );
  }
  if (needs.nodeImages)
    list.push({ program: "npm", package: "npm", why: "fetches Node.js for images" });
  list.push(
    { program: "ip", package: "iproute2", why: "connects VMs to the network" },
    { program: "nft", package: "nftables", why: "enforces network policies" },
  );
  if (!root) list.push({ program: "pasta", package: "passt", why: "is the way out without root" });
  return list;
}

/** Those that are not on PATH. Starts no process. */
export async function missingPrograms(programs: readonly Program[]): Promise<Program[]> {
  const found = await Promise.all(programs.map(({ program }) => which(program)));
  return programs.filter((_program, i) => found[i] === undefined);
}

/** Install command for people. */
export function installCommand(programs: readonly Program[]): string {
  const names = [...new Set(programs.map((program) => program.package))];
  return `apt-get install --no-install-recommends ${names.join(" ")}`;
}

/** The error for programs that stay missing. */
function missingError(missing: readonly Program[], why: string): VmsanError {
  return new VmsanError({
    code: "ERR_SETUP_MISSING_BINARY",
    message: `Missing programs: ${missing.map(({ program }) => program).join(", ")}`,
    why,
    fix: `As root: ${installCommand(missing)}`,
    details: { packages: missing.map((program) => program.package) },
  });
}

/**
 * Install what is missing with the distribution's apt: only as root, never by sudo.
 * @throws ERR_SETUP_MISSING_BINARY
 */
export async function installPrograms(
  missing: readonly Program[],
  options: { offline: boolean; signal?: AbortSignal; progress?: ProgressSink },
): Promise<void> {
  if (options.offline)
    throw missingError(
      missing,
      "They are distribution packages, and --offline forbids fetching them.",
    );
  if (process.getuid?.() !== 0)
    throw missingError(missing, "They are distribution packages, which only root can install.");
  if ((await which("apt-get")) === undefined)
    throw missingError(missing, "This host has no apt-get; use its own package manager.");
  const tell = (message: string): void =>
    options.progress?.({ phase: "setup", item: "programs", message });
  const names = [...new Set(missing.map((program) => program.package))];
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive", LC_ALL: "C" };
  const lock = ["-o", "DPkg::Lock::Timeout=300"];
  const install = ["install", "-y", "-q", "--no-install-recommends", ...lock, ...names];
  const abort = options.signal === undefined ? {} : { signal: options.signal };
  tell(`installing ${names.join(", ")}`);
  let result = await run("apt-get", install, { env, ...abort, timeoutMs: 20 * 60_000 });
  if (result.code !== 0) {
    // The lists may be old or missing.
    tell("updating package lists");
    await run("apt-get", ["update", "-q", ...lock], { env, ...abort, timeoutMs: 10 * 60_000 });
    result = await run("apt-get", install, { env, ...abort, timeoutMs: 20 * 60_000 });
  }
  const still = await missingPrograms(missing);
  if (still.length === 0) return;
  const errors = result.stderr.split("\n").filter((line) => /^E: |dpkg: error/.test(line));
  throw missingError(
    still,
    errors.slice(0, 4).join("\n") || "apt-get installed nothing of that name.",
  );
}
