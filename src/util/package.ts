/** Where this package lies, from sources or built, and which version it is. */
import { existsSync, readFileSync } from "node:fs";
import { getCompileCacheDir } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(import.meta.url);
const fromSources = here.endsWith(".ts");

/** Absolute path of the package's root directory. */
export const packageRoot: string = findRoot(dirname(here));

/** The first directory upward that holds a package.json. */
function findRoot(start: string): string {
  for (let dir = start; ; dir = dirname(dir)) {
    if (existsSync(join(dir, "package.json"))) return dir;
    if (dir === dirname(dir)) throw new Error(`no package.json above ${start}`);
  }
}

/**
 * Absolute path of a program of this package that runs in a process or thread of its own.
 * @param name path below src/ without extension, e.g. `daemon/main`
 */
export function entryPoint(name: string): string {
  return fromSources
    ? join(packageRoot, "src", `${name}.ts`)
    : join(packageRoot, "dist", `${name}.js`);
}

/**
 * Absolute path of the compile cache while running from sources; the installed package keeps its
 * own in VMSAN_DIR. bin/start.cjs, which can import nothing, knows both as well.
 */
export const sourcesCompileCache: string | undefined = fromSources
  ? join(packageRoot, ".cache", "compile")
  : undefined;

/** This process's environment for another program of this package, which then takes its compiled code from the same cache. */
export function withCompileCache(): NodeJS.ProcessEnv {
  // Below it Node.js has a directory for each of its versions.
  const own = getCompileCacheDir();
  return own === undefined ? process.env : { ...process.env, NODE_COMPILE_CACHE: dirname(own) };
}

let cachedVersion: string | undefined;

/** Version of this package. */
export function packageVersion(): string {
  if (cachedVersion === undefined) {
    const text = readFileSync(join(packageRoot, "package.json"), "utf8");
    const { version } = JSON.parse(text) as { version?: unknown };
    cachedVersion = typeof version === "string" ? version : "0.0.0";
  }
  return cachedVersion;
}

/** Absolute path of the command `vmsan` itself. */
export function commandPath(): string {
  return join(packageRoot, "bin", "vmsan");
}

/** Absolute path of a Go program of this package for this machine. */
function goBinary(name: string): string {
  const file = `${name}-${process.arch === "arm64" ? "aarch64" : "x86_64"}`;
  return fromSources
    ? join(packageRoot, ".cache", "agent", file)
    : join(packageRoot, "dist", "guest", file);
}

/** Absolute path of the directory with the code interpreter's server, programs for guests. */
export function interpreterSource(): string {
  return join(packageRoot, fromSources ? "guest/interpreter" : "dist/guest/interpreter");
}

/** Absolute path of the guest agent, whether it has been built or not. */
export function agentBinary(): string {
  return goBinary("vmsan-agent");
}

/** Absolute path of the program that serves directories of the host to VMs. */
export function fileServerBinary(): string {
  return goBinary("vmsan-fileserver");
}

/** Absolute path of the server of ssh for guests. */
export function sshServerBinary(): string {
  return goBinary("vmsan-ssh");
}

/** Absolute path of the program that opens sockets in network namespaces. */
export function networkHelperBinary(): string {
  return goBinary("vmsan-nethelper");
}

/** Absolute path of the dashboard's bundle in the published package; undefined in a checkout, which bundles it. */
export const shippedUi: string | undefined = fromSources
  ? undefined
  : join(packageRoot, "dist", "ui");
