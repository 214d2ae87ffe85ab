/**
 * A Debian userland as a tar archive, by mmdebstrap in its fakechroot mode: that one needs no
 * root, no mount, no namespace and no capability.
 */
import { access, mkdir, readFile } from "node:fs/promises";
import { arch as machine } from "node:os";
import { VmsanError } from "../model/errors.ts";
import type { ProgressSink } from "../model/progress.ts";
import type { DebianRecipe } from "../schema/runtimes.ts";
import { run, runOk } from "../util/run.ts";
import { fullPath, which } from "../util/which.ts";
import { builderTemporary, endBuilders } from "./builder.ts";

/** Times in the image: files newer than this get it, so that the same packages give the same bytes. */
const sourceDateEpoch = "1735689600"; // 2025-01-01

/** Raised whenever this file makes another tree of the same recipe. */
export const debianBuilderVersion = 2;

/** Where packages come from. */
export interface DebianSources {
  suite: string;
  /** Lines of sources.list(5). */
  lines: string[];
}

const keyrings: Record<string, string> = {
  debian: "/usr/share/keyrings/debian-archive-keyring.gpg",
  ubuntu: "/usr/share/keyrings/ubuntu-archive-keyring.gpg",
};

/** The host's distribution and release, from os-release(5). */
export async function hostRelease(): Promise<{ id: string; codename: string }> {
  const text = await readFile("/etc/os-release", "utf8").catch(() => ""); // no such file: unknown
  const field = (name: string): string =>
    new RegExp(`^${name}="?([^"\n]*)"?$`, "m").exec(text)?.[1] ?? "";
  return { id: field("ID"), codename: field("VERSION_CODENAME") };
}

/** What the host's apt would fetch `suite` and its updates from, as lines for sources.list. */
async function hostSources(suite: string, option: string): Promise<string[]> {
  const format = "$(REPO_URI) $(RELEASE) $(COMPONENT)";
  const listed = await run("apt-get", ["indextargets", "--format", format, "Created-By: Packages"]);
  const wanted = new Set([suite, `${suite}-updates`, `${suite}-security`]);
  const lines = listed.stdout
    .split("\n")
    .map((line) => line.split(" "))
    .filter(([uri, release, component]) => {
      const known = release !== undefined && wanted.has(release);
      return uri !== undefined && /^[a-z+]+:\//.test(uri) && known && component === "main";
    })
    .map(([uri, release, component]) => `deb ${option}${uri} ${release} ${component}`);
  return [...new Set(lines)].sort();
}

/** Whether a file is there. */
async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}

/**
 * The recipe's own mirror and suite, else the host's. Reads only local files.
 * @throws ERR_RUNTIME_SOURCES when neither is known
 */
export async function debianSources(recipe: DebianRecipe): Promise<DebianSources> {
  const host = await hostRelease();
  const suite = recipe.suite ?? host.codename;
  const keyring = keyrings[host.id];
  const option = keyring !== undefined && (await exists(keyring)) ? `[signed-by=${keyring}] ` : "";
  if (suite !== "") {
    if (recipe.mirror !== undefined) {
      return { suite, lines: [`deb ${option}${recipe.mirror} ${suite} main`] };
    }
    if (keyring !== undefined) {
      const lines = await hostSources(suite, option);
      if (lines.length > 0) return { suite, lines };
    }
  }
  throw new VmsanError({
    code: "ERR_RUNTIME_SOURCES",
    message: `Cannot tell where to get Debian packages${suite === "" ? "" : ` of ${suite}`} from`,
    why: "This host's apt has no such source, and none is given.",
    fix: "Give one: vmsan setup --mirror URL --suite NAME; or make the runtime an image in runtimes.json.",
  });
}

/** The host's own settings of how apt fetches (proxies, retries, checks), for the build only. */
async function fetchOptions(): Promise<string[]> {
  const dump = await run("apt-config", ["dump"]);
  return dump.stdout
    .split("\n")
    .filter((line) => /^Acquire::(https?|Retries|Check-|ForceIPv)[^"]*"[^"]+";$/i.test(line));
}

/** The commands that finish the tree, run by mmdebstrap with its root as $1. */
function finishingHooks(user: string | undefined): string[] {
  const hooks: string[] = [];
  if (user !== undefined && user !== "root") {
    hooks.push(
      `chroot "$1" useradd --uid 1000 --user-group --create-home --shell /bin/bash ${user}`,
      // Only where the image has it: a catalogue may leave sudo out.
      `if [ -d "$1/etc/sudoers.d" ]; then printf '%s ALL=(ALL:ALL) NOPASSWD:ALL\\n' ${user} >"$1/etc/sudoers.d/90-${user}"; chmod 0440 "$1/etc/sudoers.d/90-${user}"; fi`,
    );
  }
  hooks.push(
    // mmdebstrap's ldconfig removes the links of libraries that are alternatives (findings/).
    `chroot "$1" sh -c 'update-alternatives --get-selections | while read -r name rest; do update-alternatives --quiet --auto "$name" || exit 1; done' >/dev/null 2>&1`,
    // The host's proxies and settings are no part of the image.
    'rm -f "$1/etc/apt/apt.conf.d/99mmdebstrap"',
    'find "$1/var/log" "$1/var/cache" -type f -delete',
    'rm -f "$1"/etc/*- "$1/etc/.pwd.lock" "$1/var/lib/dpkg/"*-old',
    'rm -f "$1/etc/resolv.conf" "$1/etc/hostname"; : >"$1/etc/machine-id"',
  );
  return hooks;
}

/** What {@link makeDebianTar} takes. */
export interface DebianTarOptions {
  recipe: DebianRecipe;
  sources: DebianSources;
  /** A user to make in it, with uid 1000 and sudo. */
  user?: string;
  /** Path of the archive to write. */
  output: string;
  /** An existing directory of the build's own; the caller removes it. */
  scratch: string;
  signal?: AbortSignal;
  progress?: ProgressSink;
}

/** What went wrong, in the user's terms, from mmdebstrap's output. */
function buildError(output: string, suite: string): VmsanError {
  const lines = output
    .split("\n")
    .filter((line) => /^(E|W|Err|dpkg: error)|No space left/.test(line));
  const why = lines.slice(-6).join("\n") || output.trim().slice(-1000);
  if (/No space left on device/.test(output)) {
    return new VmsanError({
      code: "ERR_DISK_FULL",
      message: `Cannot make the Debian (${suite}) image`,
      why,
      fix: "It needs about 1.5 GB free in VMSAN_DIR while it is made.",
    });
  }
  const network =
    /Could not (resolve|connect)|Temporary failure|Network is unreachable|Failed to fetch|Connection (refused|timed out|failed)/.test(
      output,
    );
  return new VmsanError({
    code: network ? "ERR_RUNTIME_FETCH" : "ERR_RUNTIME_BUILD",
    message: `Cannot make the Debian (${suite}) image`,
    why,
    fix: network
      ? "Check the network and apt's proxy settings; or use a mirror (vmsan setup --mirror URL) or a bundle (vmsan setup --from DIR)."
      : "Run `vmsan setup --verbose` to see all of mmdebstrap's output.",
  });
}

/**
 * Write the tree as a tar archive: sorted, fixed times, numeric owners, no logs and caches.
 * @throws ERR_SETUP_MISSING_BINARY, ERR_RUNTIME_FETCH, ERR_RUNTIME_BUILD, ERR_DISK_FULL
 */
export async function makeDebianTar(options: DebianTarOptions): Promise<void> {
  const { recipe, sources, user, output, scratch, signal, progress } = options;
  await requireTools();
  const temporary = builderTemporary(scratch);
  await mkdir(temporary, { recursive: true });
  const args = [
    "--mode=fakechroot",
    "--variant=minbase",
    "--format=tar",
    `--architectures=${machine() === "arm64" ? "arm64" : "amd64"}`,
    ...(recipe.packages.length === 0 ? [] : [`--include=${recipe.packages.join(",")}`]),
    ...(await fetchOptions()).map((line) => `--aptopt=${line}`),
    "--aptopt=Apt::Install-Recommends false",
    // As in Debian's slim images: manuals take a third of the space and nobody reads them here.
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/info/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
    ...finishingHooks(user).map((hook) => `--customize-hook=${hook}`),
    sources.suite,
    output,
    ...sources.lines,
  ];
  try {
    const result = await run("mmdebstrap", args, {
      env: buildEnvironment(temporary),
      cwd: scratch,
      timeoutMs: 30 * 60_000,
      group: true,
      ...(signal === undefined ? {} : { signal }),
      onOutput: (text) => tellSteps(text, progress),
    });
    if (result.code !== 0) throw buildError(result.stdout + result.stderr, sources.suite);
  } finally {
    await endBuilders(scratch);
  }
}

/** The steps among mmdebstrap's messages, as progress. */
function tellSteps(text: string, progress: ProgressSink | undefined): void {
  const steps = /^I: ((?:running apt|downloading|extracting|installing|creating).+)/gm;
  for (const [, message = ""] of text.matchAll(steps)) {
    progress?.({ phase: "setup", item: "base", message });
  }
}

/** mmdebstrap's environment: nothing of ours but proxies, and programs of sbin for all users. */
function buildEnvironment(temporary: string): NodeJS.ProcessEnv {
  const environment: NodeJS.ProcessEnv = {
    PATH: fullPath(),
    LC_ALL: "C",
    HOME: temporary,
    TMPDIR: temporary,
    SOURCE_DATE_EPOCH: sourceDateEpoch,
  };
  for (const [name, value] of Object.entries(process.env)) {
    if (/^(https?|ftp|no|all)_proxy$/i.test(name)) environment[name] = value;
  }
  return environment;
}

/** @throws ERR_SETUP_MISSING_BINARY, naming all Debian packages to install at once */
async function requireTools(): Promise<void> {
  const missing: string[] = [];
  for (const tool of ["mmdebstrap", "fakechroot", "fakeroot"]) {
    if ((await which(tool)) === undefined) missing.push(tool);
  }
  if (missing.length === 0) return;
  throw new VmsanError({
    code: "ERR_SETUP_MISSING_BINARY",
    message: `Cannot make the base image without ${missing.join(", ")}`,
    why: "It is made from Debian's packages by mmdebstrap, without root, with fakechroot and fakeroot.",
    fix: `Install them: apt-get install ${missing.join(" ")}`,
    details: { packages: missing },
  });
}

/** Packages and versions in a tree made here, from its dpkg status file's text. */
export function packagesOf(status: string): Record<string, string> {
  const packages: Record<string, string> = {};
  for (const stanza of status.split("\n\n")) {
    const name = /^Package: (.+)$/m.exec(stanza)?.[1];
    const version = /^Version: (.+)$/m.exec(stanza)?.[1];
    if (name !== undefined && version !== undefined) packages[name] = version;
  }
  return packages;
}

/** Text of one file of a tar archive. @throws ERR_RUNTIME_BUILD when it is not in it */
export async function readFromTar(archive: string, name: string): Promise<string> {
  return await runOk("tar", ["-xOf", archive, name], "ERR_RUNTIME_BUILD", { maxOutput: 16 << 20 });
}
