/**
 * A Debian userland as a tar archive, by mmdebstrap in its fakechroot mode: that one needs no
 * root, no mount, no namespace and no capability.
 */
import { mkdir } from "node:fs/promises";
import { arch as machine } from "node:os";
import { VmsanError } from "../model/errors.ts";
import type { ProgressSink } from "../model/progress.ts";
import type { DebianRecipe } from "../schema/runtimes.ts";
import { run, runOk } from "../util/run.ts";
import { fullPath, which } from "../util/which.ts";
import { builderTemporary, endBuilders } from "./builder.ts";
import type { DebianSources } from "./debian-sources.ts";

/** Times in the image: files newer than this get it, so that the same packages give the same bytes. */
const sourceDateEpoch = "1735689600"; // 2025-01-01

/** Raised whenever this file makes another tree of the same recipe. */
export const debianBuilderVersion = 2;

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

/** What nobody reads here, as in Debian's slim images: manuals take a third of the space. */
const MANUALS = ["/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*"];

/** What of unpacked packages is left out: also what Debian's buildah has for its own tests (90 MB). */
const LEFT_OUT = [
  ...MANUALS,
  // All but copyright.
  ...["[!c]*", "c[!o]*"].map((name) => `/usr/share/doc/*/${name}`),
  ...["copy", "imgtype", "serve", "tutorial"].map((name) => `/usr/libexec/buildah/${name}`),
  "/dev/*",
  // mmdebstrap's, with the host's proxies.
  "/etc/apt/apt.conf.d/*mmdebstrap",
  "/etc/hostname",
  "/etc/resolv.conf",
  "/var/cache/apt/*",
  "/var/lib/apt/lists/*",
];

/**
 * The commands that write the archive VMSAN_ARCHIVE of packages that are only unpacked: mmdebstrap would run the
 * tree's own tar, which another release's library may not carry. What their scripts would have made,
 * and a program or two need, is made here.
 */
function unpackedHooks(): string[] {
  return [
    ...["passwd", "group"].map((name) => {
      const master = `"$1/usr/share/base-passwd/${name}.master"`;
      return `[ ! -e ${master} ] || cp ${master} "$1/etc/${name}"`;
    }),
    'cd "$1/usr/share/ca-certificates" 2>/dev/null || exit 0; mkdir -p "$1/etc/ssl/certs" && cat mozilla/*.crt >"$1/etc/ssl/certs/ca-certificates.crt"',
    // Of an unpacked tree nothing else says what is in it.
    `for file in "$1"/var/cache/apt/archives/*.deb; do dpkg-deb --field "$file" Package Version && echo || exit 1; done >"$1/var/lib/dpkg/status"`,
    ': >"$1/etc/machine-id"',
    [
      'tar -C "$1" --sort=name --format=pax --numeric-owner',
      "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime",
      `--mtime=@${sourceDateEpoch} --clamp-mtime`,
      ...LEFT_OUT.map((path) => `--exclude='.${path}'`),
      '-cf "$VMSAN_ARCHIVE" .',
    ].join(" "),
  ];
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
  const unpack = recipe.unpack === true;
  const hooks = unpack
    ? unpackedHooks().map((hook) => `--extract-hook=${hook}`)
    : finishingHooks(user).map((hook) => `--customize-hook=${hook}`);
  const args = [
    "--mode=fakechroot",
    `--variant=${unpack ? "extract" : "minbase"}`,
    `--format=${unpack ? "null" : "tar"}`,
    `--architectures=${machine() === "arm64" ? "arm64" : "amd64"}`,
    ...(recipe.packages.length === 0 ? [] : [`--include=${recipe.packages.join(",")}`]),
    ...(await fetchOptions()).map((line) => `--aptopt=${line}`),
    "--aptopt=Apt::Install-Recommends false",
    ...[...MANUALS, "/usr/share/doc/*"].map((path) => `--dpkgopt=path-exclude=${path}`),
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
    ...hooks,
    sources.suite,
    unpack ? "-" : output,
    ...sources.lines,
  ];
  try {
    const result = await run("mmdebstrap", args, {
      env: { ...buildEnvironment(temporary), VMSAN_ARCHIVE: output },
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
