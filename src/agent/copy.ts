/** Copying files and trees between this host and a guest. */
import { stat } from "node:fs/promises";
import { basename, dirname, join, posix } from "node:path";
import { VmsanError, errnoOf, messageOf } from "../model/errors.ts";
import { absolutePath, bytesOfText, fsPath, textOfBytes } from "../util/byte-text.ts";
import { extract } from "./archive/extract.ts";
import { pack } from "./archive/pack.ts";
import type { PackSource } from "./archive/pack.ts";
import { checkExit, feed, readFile, withSignal, withUser } from "./file-stream.ts";
import type { FileOptions } from "./file-stream.ts";
import { statFile } from "./files.ts";
import { startStream } from "./streams.ts";
import type { StreamSpec } from "./spec.ts";
import { guestErrno } from "./transport.ts";
import type { GuestTransport } from "./transport.ts";

/** Options of copies. */
export interface CopyOptions extends FileOptions {
  /** Content bytes copied so far. */
  onProgress?: (bytes: number) => void;
  /** One thing that was left out, and why. */
  onSkip?: (what: string, why: string) => void;
}

/** How an archive is unpacked in a guest. */
export interface UnpackOptions extends FileOptions {
  /** The directory is made, with those above it. */
  parents?: boolean;
  /** Files belong to whom the archive says, by number, and not to the user. */
  owners?: boolean;
}

/** What is made of an archive at a place of a guest. */
export interface FillOptions {
  /**
   * `volume` (default): a directory that is exchanged at one instant, as Kubernetes does; `tree`: a directory; `file`: one file,
   * the archive's only entry.
   */
  shape?: "volume" | "tree" | "file";
  /** Who runs in the guest may write there, as far as modes permit. */
  writable?: boolean;
  /** Of the directory; default 0o755. */
  mode?: number;
  /** Whose group the directory is; default root's. */
  gid?: number;
  signal?: AbortSignal;
}

/** The home directory of a user of the guest: from its /etc/passwd, else / (/root for root). */
export async function homeOf(
  transport: GuestTransport,
  user = "root",
  signal?: AbortSignal,
): Promise<string> {
  const given = user.split(":")[0] ?? "";
  const name = given === "" ? "0" : given;
  const root = name === "root" || name === "0";
  // A number is a number, also where a user is called so.
  const isUser = (entry = "", uid = ""): boolean =>
    /^\d+$/.test(name) ? /^\d+$/.test(uid) && Number(uid) === Number(name) : entry === name;
  const chunks: Buffer[] = [];
  try {
    const take = (bytes: Buffer): void => {
      if (chunks.length < 1000) chunks.push(bytes);
    };
    await readFile(transport, "/etc/passwd", take, signal === undefined ? {} : { signal });
  } catch (error) {
    // An image without /etc/passwd; anything else comes back with the copy itself.
    if (!(error instanceof VmsanError)) throw error;
  }
  for (const line of textOfBytes(Buffer.concat(chunks)).split("\n")) {
    const [entry, , uid, , , home] = line.split(":");
    if (isUser(entry, uid) && home?.startsWith("/") === true) return home;
  }
  return root ? "/root" : "/";
}

/** A path without slashes at its end. */
function withoutSlash(path: string): string {
  return path.replace(/\/+$/, "") || "/";
}

/** An absolute path of the guest, relative ones taken from the user's home. */
export async function guestPath(
  transport: GuestTransport,
  path: string,
  options: FileOptions,
): Promise<string> {
  if (path.startsWith("/")) return withoutSlash(path);
  const home = await homeOf(transport, options.user, options.signal);
  const inside = path === "~" ? "" : path.startsWith("~/") ? path.slice(2) : path;
  return withoutSlash(posix.join(home, inside));
}

/** Whether the agent says that there is no such file. */
function isMissing(error: VmsanError): boolean {
  return guestErrno(error) === "ENOENT";
}

/** Whether a path of the guest is a directory, symlinks followed; undefined: nothing is there. */
async function isGuestDirectory(
  transport: GuestTransport,
  path: string,
  options: FileOptions,
): Promise<boolean | undefined> {
  try {
    const { signal, user } = options;
    const entry = await statFile(transport, path, {
      follow: true,
      ...(signal === undefined ? {} : { signal }),
      ...(user === undefined ? {} : { user }),
    });
    return entry.type === "dir";
  } catch (error) {
    if (error instanceof VmsanError && isMissing(error)) return undefined;
    throw error;
  }
}

/**
 * Copy files and trees of this host into the guest. As with cp: into `destination` when it is
 * a directory there, ends in a slash or there are several sources; else to that very name.
 * Nothing appears under its final name before all of it is there.
 * @param sources paths, which may stand for bytes (util/byte-text.ts)
 * @param destination in the guest, likewise; relative to the user's home
 */
export async function upload(
  transport: GuestTransport,
  sources: readonly string[],
  destination: string,
  options: CopyOptions = {},
): Promise<void> {
  const target = await guestPath(transport, destination, options);
  const there = await isGuestDirectory(transport, target, options);
  const into = there === true || sources.length > 1 || /(^|\/)$/.test(destination);
  const paths = sources.map(absolutePath);
  const packed = paths.map((path): PackSource => ({
    path: fsPath(path),
    name: bytesOfText(into ? basename(path) : posix.basename(target)),
  }));
  for (const path of paths) {
    try {
      await stat(fsPath(path));
    } catch (error) {
      if (errnoOf(error) !== "ENOENT") throw error;
      throw new VmsanError({
        code: "ERR_AGENT_UPLOAD",
        message: `Cannot upload ${path}`,
        why: "There is no such file or directory.",
        fix: "Check the path.",
      });
    }
  }
  const { onProgress, onSkip } = options;
  const archive = pack(packed, {
    ...(onProgress === undefined ? {} : { onProgress }),
    ...(onSkip === undefined ? {} : { onSkip: (path, why) => onSkip(textOfBytes(path), why) }),
  });
  const place = into ? target : posix.dirname(target);
  await unpack(transport, archive, place, { ...options, parents: into && there === undefined });
}

/**
 * Unpack a tar archive in a directory of the guest; nothing of it appears outside.
 * @param archive not compressed
 * @param path absolute
 */
export async function unpack(
  transport: GuestTransport,
  archive: AsyncIterable<Buffer>,
  path: string,
  options: UnpackOptions = {},
): Promise<void> {
  const { parents = false, owners = false } = options;
  const spec: StreamSpec = {
    kind: "untar",
    stdin: true,
    path,
    ...(parents ? { parents } : {}),
    ...(owners ? { owners } : {}),
  };
  let said = "";
  const stream = startStream(transport, withUser(spec, options), {
    ...withSignal(options),
    onStderr: (bytes) => {
      said = (said + bytes.toString("utf8")).slice(0, 8192);
    },
  });
  await feed(stream, archive);
  await checkExit(stream, `Cannot write to ${path} in the guest`, said);
}

/**
 * Have an archive's files be at a place of the guest, in memory.
 * @param archive not compressed
 * @param path absolute
 */
export async function fill(
  transport: GuestTransport,
  archive: AsyncIterable<Buffer>,
  path: string,
  { signal, shape = "volume", ...rest }: FillOptions = {},
): Promise<void> {
  const stream = startStream(
    transport,
    { kind: "fill", stdin: true, path, shape, ...rest },
    signal === undefined ? {} : { signal },
  );
  await feed(stream, archive);
  await checkExit(stream, `Cannot write to ${path} in the guest`);
}

/** Whether a path of this host is a directory; undefined: nothing is there. */
async function isHostDirectory(path: string): Promise<boolean | undefined> {
  try {
    return (await stat(fsPath(path))).isDirectory();
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

/**
 * Copy a file or tree of the guest to this host. As with cp: into `destination` when it is a
 * directory, else to that very name. All of it appears there, or nothing.
 * @param path in the guest; relative to the user's home
 * @param destination here; both may stand for bytes (util/byte-text.ts)
 */
export async function download(
  transport: GuestTransport,
  path: string,
  destination: string,
  options: CopyOptions = {},
): Promise<void> {
  const source = await guestPath(transport, path, options);
  const name = posix.basename(source) || "root";
  const there = await isHostDirectory(destination);
  if (there === undefined && destination.endsWith("/")) throw missing(destination);
  const final = there === true ? join(destination, name) : absolutePath(destination);
  const parent = dirname(final);
  if ((await isHostDirectory(parent)) !== true) throw missing(parent);
  const { onProgress, onSkip } = options;
  let said = "";
  const stream = startStream(transport, withUser({ kind: "tar", path: source }, options), {
    ...withSignal(options),
    onStderr: (bytes) => {
      said = (said + bytes.toString("utf8")).slice(0, 8192);
    },
  });
  try {
    await extract(stream.stdout as AsyncIterable<Buffer>, fsPath(parent), {
      as: bytesOfText(basename(final)),
      ...(onProgress === undefined ? {} : { onProgress }),
      ...(onSkip === undefined ? {} : { onSkip: (what, why) => onSkip(textOfBytes(what), why) }),
      ready: () => checkExit(stream, `Cannot read all of ${path} in the guest`, said),
    });
  } catch (error) {
    // What the agent reports is the cause; the archive is cut off because of it.
    stream.signal("SIGKILL", true);
    stream.stdout.destroy();
    const reported = await stream.exit.then(
      ({ error: info }) => (info === undefined ? undefined : new VmsanError(info)),
      (problem: unknown) => problem,
    );
    if (reported instanceof Error && isCut(error)) throw reported;
    if (error instanceof VmsanError || options.signal?.aborted === true) throw error;
    throw new VmsanError(
      {
        code: "ERR_AGENT_DOWNLOAD",
        message: `Cannot write ${final}`,
        why: messageOf(error),
        fix: "Check the directory's permissions and the free space.",
      },
      error,
    );
  }
}

/** Whether an error only says that the archive ended too early. */
function isCut(error: unknown): boolean {
  return (
    !(error instanceof VmsanError) ||
    (error.code === "ERR_AGENT_ARCHIVE" && /\bends? |cut off/.test(error.why ?? ""))
  );
}

/** The error for a destination directory that is not there. */
function missing(path: string): VmsanError {
  return new VmsanError({
    code: "ERR_AGENT_DOWNLOAD",
    message: `Cannot download to ${path}`,
    why: "There is no such directory.",
    fix: `Make it first: mkdir -p ${path}`,
  });
}
