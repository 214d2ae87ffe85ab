/**
 * Unpacks an archive of an untrusted guest on this host, so that nothing is ever written
 * outside of the destination and nothing half-made appears under its final name.
 *
 * Everything goes to a directory of our own (mode 0700) beside the destination first. In it
 * only what this code has made exists, symlinks are made last, and an entry is accepted only
 * below a directory that was made here: so no path ever leads through a symlink. Own code
 * because neither GNU tar nor the known libraries promise all of that.
 */
import { randomBytes } from "node:crypto";
import { constants } from "node:fs";
import type { Stats } from "node:fs";
import {
  chmod,
  link,
  lstat,
  lutimes,
  mkdir,
  open,
  readdir,
  rename,
  rm,
  symlink,
  utimes,
} from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { VmsanError, errnoOf } from "../../model/errors.ts";
import { textOfBytes } from "../../util/byte-text.ts";
import { joinBytes } from "./pack.ts";
import { archiveError } from "./pax.ts";
import type { ArchiveEntry } from "./pax.ts";
import { readArchive } from "./read.ts";
import type { ReadEntry } from "./read.ts";

/** Bounds, and what to tell. */
export interface ExtractOptions {
  /** Name that replaces the archive's top-level one, of which there must be one only. */
  as: Buffer;
  /** Most entries; default two million. */
  maxEntries?: number;
  /** Most content bytes; default 1 TiB. */
  maxBytes?: number;
  /** Content bytes written so far. */
  onProgress?: (bytes: number) => void;
  /** What was left out, and why. */
  onSkip?: (name: Buffer, why: string) => void;
}

const MAX_ENTRIES = 2_000_000;
const MAX_BYTES = 2 ** 40;
const DOT = Buffer.from(".");

/**
 * Seconds, as precise as a double is (about a quarter of a microsecond). As text: of a negative
 * number Node.js makes the present time.
 */
function seconds(ns: bigint): string {
  return String(Number(ns) / 1e9);
}

/** The staging directory and what has been made in it. */
class Stage {
  /** Absolute path. */
  readonly dir: Buffer;
  private readonly options: ExtractOptions;
  private readonly dirs = new Map<string, ArchiveEntry>();
  private readonly files = new Set<string>();
  private readonly symlinks: ArchiveEntry[] = [];
  private readonly seen = new Set<string>();
  private bytes = 0;
  /** Whether the first entry is `.`. */
  private atRoot: boolean | undefined;

  constructor(dir: Buffer, options: ExtractOptions) {
    this.dir = dir;
    this.options = options;
  }

  /** Make one entry. */
  async add({ entry, content }: ReadEntry): Promise<void> {
    const name = this.rename(entry.name);
    const key = name.toString("latin1");
    if (this.seen.has(key)) throw archiveError("A name comes twice.", name);
    this.seen.add(key);
    if (this.seen.size > (this.options.maxEntries ?? MAX_ENTRIES)) {
      throw archiveError(`It has more than ${this.options.maxEntries ?? MAX_ENTRIES} entries.`);
    }
    const parent = key.slice(0, Math.max(0, key.lastIndexOf("/")));
    if (parent !== "" && !this.dirs.has(parent)) {
      throw archiveError("An entry comes before its directory, or below something else.", name);
    }
    const path = joinBytes(this.dir, name);
    switch (entry.type) {
      case "dir":
        await mkdir(path, 0o700);
        this.dirs.set(key, { ...entry, name });
        break;
      case "file":
        await this.file(path, entry, content);
        this.files.add(key);
        break;
      case "symlink":
        this.symlinks.push({ ...entry, name });
        break;
      case "hardlink": {
        const target = this.rename(entry.link ?? Buffer.alloc(0));
        if (!this.files.has(target.toString("latin1"))) {
          this.options.onSkip?.(name, "a hard link to something that is no file of the archive");
          break;
        }
        await link(joinBytes(this.dir, target), path);
        this.files.add(key);
        break;
      }
      case "fifo":
      case "char":
      case "block":
        this.options.onSkip?.(name, "pipes and devices are not made on the host");
        break;
      default:
        throw archiveError("An entry of an unknown type.", name);
    }
  }

  /** Symlinks, then the directories' own modes and times, deepest first. */
  async finish(): Promise<void> {
    for (const entry of this.symlinks) {
      const path = joinBytes(this.dir, entry.name);
      await symlink(entry.link ?? Buffer.alloc(0), path);
      await lutimes(path, seconds(entry.mtimeNs), seconds(entry.mtimeNs));
    }
    for (const entry of [...this.dirs.values()].reverse()) {
      const path = joinBytes(this.dir, entry.name);
      await utimes(path, seconds(entry.mtimeNs), seconds(entry.mtimeNs));
      await chmod(path, this.modeOf(entry));
    }
  }

  private async file(
    path: Buffer,
    entry: ArchiveEntry,
    content: ReadEntry["content"],
  ): Promise<void> {
    const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
    const handle = await open(path, flags, 0o600);
    try {
      let end = 0;
      for await (const { offset, bytes } of content) {
        this.bytes += bytes.length;
        if (this.bytes > (this.options.maxBytes ?? MAX_BYTES)) {
          throw archiveError(`It holds more than ${this.options.maxBytes ?? MAX_BYTES} bytes.`);
        }
        await writeAll(handle, bytes, offset);
        end = offset + bytes.length;
        this.options.onProgress?.(this.bytes);
      }
      if (entry.size > end) await handle.truncate(entry.size);
      await handle.chmod(this.modeOf(entry));
      await handle.utimes(seconds(entry.mtimeNs), seconds(entry.mtimeNs));
    } finally {
      await handle.close();
    }
  }

  /** Set-id bits from a guest would be a gift to other users of this host. */
  private modeOf(entry: ArchiveEntry): number {
    if ((entry.mode & 0o6000) !== 0) {
      this.options.onSkip?.(entry.name, "its set-user-id or set-group-id bit was dropped");
    }
    return entry.mode & (entry.type === "dir" ? 0o1777 : 0o777);
  }

  /** The archive's top-level name is the guest's choice, `.` for its root directory. */
  private rename(name: Buffer): Buffer {
    const { as } = this.options;
    this.atRoot ??= name.equals(DOT);
    if (this.atRoot) return name.equals(DOT) ? as : joinBytes(as, name);
    const slash = name.indexOf(0x2f);
    return slash < 0 ? as : Buffer.concat([as, name.subarray(slash)]);
  }
}

/** Write everything at that place. */
async function writeAll(handle: FileHandle, bytes: Buffer, offset: number): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    const { bytesWritten } = await handle.write(bytes, done, bytes.length - done, offset + done);
    done += bytesWritten;
  }
}

/** The error for something that is in the way. */
function conflict(name: Buffer, why: string): VmsanError {
  return new VmsanError({
    code: "ERR_AGENT_CONFLICT",
    message: `Cannot replace ${JSON.stringify(textOfBytes(name))}`,
    why,
    fix: "Remove it first, or choose another destination.",
  });
}

/** What is at a path; undefined for nothing. */
async function look(path: Buffer): Promise<Stats | undefined> {
  try {
    return await lstat(path);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

/** A directory held open, so that what is below it is reached without following symlinks. */
async function holdDirectory(path: Buffer): Promise<{ handle: FileHandle; path: Buffer }> {
  const flags = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;
  const handle = await open(path, flags);
  return { handle, path: Buffer.from(`/proc/self/fd/${handle.fd}`) };
}

/** Rename a directory that may lack the write permission which its new `..` needs. */
async function renameDirectory(from: Buffer, to: Buffer): Promise<void> {
  const { mode } = await lstat(from);
  if ((mode & 0o200) === 0) await chmod(from, 0o700);
  await rename(from, to);
  if ((mode & 0o200) === 0) await chmod(to, mode & 0o7777);
}

/** Move an entry to its final place: new ones whole, directories that exist are merged into. */
async function install(from: Buffer, toDir: Buffer, name: Buffer, isDir: boolean): Promise<void> {
  const target = joinBytes(toDir, name);
  const there = await look(target);
  if (there === undefined || (!isDir && !there.isDirectory())) {
    if (isDir) await renameDirectory(from, target);
    else await rename(from, target);
    return;
  }
  if (!isDir) throw conflict(name, "A directory has that name.");
  if (!there.isDirectory()) {
    throw conflict(
      name,
      "A file or a symlink has the name of a directory; symlinks are not followed.",
    );
  }
  // A directory without write permission would not let its children go.
  await chmod(from, 0o700);
  const held = await holdDirectory(target);
  try {
    for (const child of await readdir(from, { encoding: "buffer", withFileTypes: true })) {
      await install(joinBytes(from, child.name), held.path, child.name, child.isDirectory());
    }
  } finally {
    await held.handle.close();
  }
}

/**
 * Unpack an archive into a directory of this host: all of it, or (up to the moment when it
 * is moved into place) nothing.
 * @param destination an existing directory
 * @throws ERR_AGENT_ARCHIVE for an archive that is refused, ERR_AGENT_CONFLICT
 */
export async function extract(
  source: AsyncIterable<Buffer>,
  destination: string | Buffer,
  options: ExtractOptions & { ready?: () => Promise<void> },
): Promise<void> {
  const parent = Buffer.from(destination);
  const dir = joinBytes(parent, Buffer.from(`.vmsan-part-${randomBytes(6).toString("hex")}`));
  await mkdir(dir, 0o700);
  try {
    const stage = new Stage(dir, options);
    for await (const entry of readArchive(source)) await stage.add(entry);
    await stage.finish();
    // The sender's own verdict, before anything gets its final name.
    await options.ready?.();
    for (const child of await readdir(dir, { encoding: "buffer", withFileTypes: true })) {
      await install(joinBytes(dir, child.name), parent, child.name, child.isDirectory());
    }
  } finally {
    await removeTree(dir);
  }
}

/** Remove a tree of ours, whatever the modes of its directories. */
async function removeTree(dir: Buffer): Promise<void> {
  const open = async (path: Buffer): Promise<void> => {
    await chmod(path, 0o700);
    for (const child of await readdir(path, { encoding: "buffer", withFileTypes: true })) {
      if (child.isDirectory()) await open(joinBytes(path, child.name));
    }
  };
  if (process.geteuid?.() !== 0) await open(dir);
  await rm(dir, { recursive: true, force: true });
}
