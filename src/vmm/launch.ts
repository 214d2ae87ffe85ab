/** Starting VMM processes so that they survive us: own session, own boxes, output to a file. */
import { spawn, type ChildProcess } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { open } from "node:fs/promises";
import { delimiter, isAbsolute, join } from "node:path";
import { access, constants } from "node:fs/promises";
import { VmsanError, errnoOf, messageOf } from "../model/errors.ts";
import type { ProcessIdentity } from "../model/vm.ts";
import { identityOf } from "../util/process-identity.ts";
import { run } from "../util/run.ts";

/** Boxes around a VMM, put on by small programs that replace themselves by the next one. */
export interface Boxes {
  /** Control group directories to join. */
  cgroups: readonly string[];
  /** `host`: ours; `new`: an empty one; else the path of one, and of the user namespace it is in. */
  network: "host" | "new" | { path: string; user?: string };
  /** A user namespace of its own, for `new` networks without root. */
  userNamespace: boolean;
  /** No privileges by executing anything, ever. */
  noNewPrivileges: boolean;
}

/** Joins control groups, then becomes the program behind the `--`. Nothing is interpolated. */
const joinScript =
  'while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs" || exit 125; shift; done; shift; exec "$@"';

/** The command line that runs `argv` in these boxes with the process id unchanged. */
export function boxed(argv: readonly string[], boxes: Boxes): string[] {
  const out: string[] = [];
  if (boxes.cgroups.length > 0) {
    out.push("/bin/sh", "-c", joinScript, "vmsan-cgroup", ...boxes.cgroups, "--");
  }
  let drop: string[] = [];
  if (typeof boxes.network === "object") {
    const { path, user } = boxes.network;
    const users = user === undefined ? [] : [`--user=${user}`, "--preserve-credentials"];
    out.push("nsenter", ...users, `--net=${path}`, "--");
    // Whoever enters a user namespace has all capabilities in it, which a VMM does not need.
    if (user !== undefined) drop = ["--bounding-set=-all", "--inh-caps=-all"];
  } else if (boxes.network === "new") {
    const user = boxes.userNamespace ? ["--user", "--map-current-user"] : [];
    out.push("unshare", ...user, "--net", "--");
  }
  if (boxes.noNewPrivileges) drop.push("--no-new-privs");
  if (drop.length > 0) out.push("setpriv", ...drop, "--");
  return [...out, ...argv];
}

let unshareWorks: Promise<string | undefined> | undefined;

/**
 * Whether an empty network namespace can be made here, by root or in a user namespace.
 * @returns undefined when it can, else the reason
 */
export async function whyNoNetworkNamespace(): Promise<string | undefined> {
  unshareWorks ??= (async () => {
    const user = process.geteuid?.() === 0 ? [] : ["--user", "--map-current-user"];
    try {
      const result = await run("unshare", [...user, "--net", "--", "true"], { timeoutMs: 5000 });
      return result.code === 0 ? undefined : result.stderr.trim() || "unshare failed";
    } catch (error) {
      return messageOf(error);
    }
  })();
  return await unshareWorks;
}

/** A started process. */
export interface Started {
  child: ChildProcess;
  identity: ProcessIdentity;
}

/** How {@link spawnDetached} starts a process. */
export interface SpawnOptions {
  cwd: string;
  /** File that standard output and error are appended to. */
  log: string;
  /** Open descriptors that become 3, 4 … in the process; they stay the caller's to close. */
  descriptors?: readonly number[];
  /** Environment beyond PATH. */
  env?: Record<string, string>;
}

/**
 * Start a program in a session of its own with no terminal, so that neither our end nor a
 * hang-up ends it. It inherits no environment but PATH: secrets stay here.
 */
export async function spawnDetached(
  argv: readonly string[],
  options: SpawnOptions,
): Promise<Started> {
  const [file = "", ...args] = argv;
  const log = openSync(options.log, "a", 0o600);
  let child: ChildProcess;
  try {
    child = spawn(file, args, {
      cwd: options.cwd,
      detached: true,
      stdio: ["ignore", log, log, ...(options.descriptors ?? [])],
      env: { PATH: process.env["PATH"] ?? "/usr/sbin:/usr/bin:/sbin:/bin", ...options.env },
    });
  } finally {
    closeSync(log);
  }
  child.unref();
  const pid = await new Promise<number>((resolve, reject) => {
    child.once("error", (error) =>
      reject(
        new VmsanError(
          {
            code: errnoOf(error) === "ENOENT" ? "ERR_SETUP_MISSING_BINARY" : "ERR_VMM_START",
            message: `Cannot run ${file}`,
            why: messageOf(error),
            fix: "Run `vmsan doctor` to see what is missing and how to install it.",
          },
          error,
        ),
      ),
    );
    child.once("spawn", () => resolve(child.pid ?? 0));
  });
  const identity = identityOf(pid);
  if (identity !== undefined) return { child, identity };
  throw new VmsanError({
    code: "ERR_VMM_START",
    message: `${file} ended at once`,
    why: await tailOf(options.log),
    fix: "Run `vmsan doctor`.",
  });
}

/** The last 4 KiB of a text file; empty when there is none. */
export async function tailOf(path: string, bytes = 4096): Promise<string> {
  try {
    const handle = await open(path, "r");
    try {
      const { size } = await handle.stat();
      const length = Math.min(size, bytes);
      const buffer = Buffer.alloc(length);
      await handle.read(buffer, 0, length, size - length);
      return buffer.toString("utf8").trim();
    } finally {
      await handle.close();
    }
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return "";
    throw error;
  }
}

/** Absolute path of a program: as given, or found in PATH; undefined when there is none. */
export async function findProgram(name: string): Promise<string | undefined> {
  const paths =
    isAbsolute(name) || name.includes("/")
      ? [name]
      : (process.env["PATH"] ?? "").split(delimiter).map((dir) => join(dir, name));
  for (const path of paths) {
    const ok = await access(path, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (ok) return path;
  }
  return undefined;
}
