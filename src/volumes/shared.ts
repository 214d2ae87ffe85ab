/**
 * Shared volumes: directories of the host, beside the volume's document. They are made aside and renamed, and what an image
 * has for an empty one is whole beside it before the first file of it is seen: a daemon that is killed goes on where it was.
 */
import {
  chmod,
  chown,
  lstat,
  mkdir,
  readFile,
  readdir,
  rename,
  rm,
  rmdir,
  utimes,
} from "node:fs/promises";
import { join } from "node:path";
import { PassThrough, Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { encodeHeader, padTo } from "../layers/layers.ts";
import { errnoOf } from "../model/errors.ts";
import { ASIDE, syncDirectory, temporarySibling } from "../util/atomic.ts";
import { removeTree } from "../util/files/remove-tree.ts";
import { run } from "../util/run.ts";
import { packTree, unpackTree } from "./tree-archive.ts";

/** What guests see of it; archives call it the same. */
const DATA = "data";
/** What an image has, on its way into {@link DATA}. */
const FILL = "fill";
/** The document in an archive: by the first name the two kinds of volumes are told apart. */
const ABOUT = "shared.json";

/** What guests see of a volume. @param dir the volume's own directory */
export function dataDirectory(dir: string): string {
  return join(dir, DATA);
}

/** Make an empty one. Its directory is its owner's alone: what guests give set-user-ID bits is no other user's to run. */
export async function makeData(dir: string): Promise<void> {
  await mkdir(dataDirectory(dir), { mode: 0o755 });
  await chmod(dataDirectory(dir), 0o755);
}

/** Have a tree survive a power cut: with all that its file system has to write. */
async function syncTree(dir: string): Promise<void> {
  const { code, stderr } = await run("sync", ["-f", "--", dir]);
  if (code !== 0) throw new Error(`sync: ${stderr.trim()}`);
}

/** Make a tree of an archive with a directory `data`, aside. @returns where it is; the caller takes or removes it */
async function unpackAside(
  dir: string,
  tree: AsyncIterable<Buffer>,
  signal: AbortSignal,
): Promise<string> {
  const draft = temporarySibling(dataDirectory(dir));
  await mkdir(draft, { mode: 0o700 });
  try {
    const refuse = (why: string): Error => new RangeError(why);
    await unpackTree(Readable.from(tree), draft, signal, refuse);
    await syncTree(draft);
    return draft;
  } catch (error) {
    await removeTree(draft);
    throw error;
  }
}

/** Have the volume's directory be what the archive says, where no document says yet that it has one. */
export async function takeData(
  dir: string,
  tree: AsyncIterable<Buffer>,
  signal: AbortSignal,
): Promise<void> {
  const draft = await unpackAside(dir, tree, signal);
  await removeTree(dataDirectory(dir));
  await rename(join(draft, DATA), dataDirectory(dir));
  await rmdir(draft);
  await syncDirectory(dir);
}

/**
 * Put what lies ready into place, name by name. What a guest that runs has made meanwhile stays as it is.
 * Once something lies ready it is whole, so that this may be broken off anywhere, and be done again.
 */
export async function settle(dir: string): Promise<void> {
  const [from, to] = [join(dir, FILL), dataDirectory(dir)];
  let names: string[];
  try {
    names = await readdir(from);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return;
    throw error;
  }
  for (const name of names) {
    const there = await lstat(join(to, name)).catch(() => undefined);
    if (there === undefined) await rename(join(from, name), join(to, name));
  }
  const { uid, gid, mode, atime, mtime } = await lstat(from);
  if (process.getuid?.() === 0) await chown(to, uid, gid);
  await chmod(to, mode & 0o7777);
  await utimes(to, atime, mtime);
  await syncDirectory(to);
  await removeTree(from);
}

/** Fill an empty one. @param tree gives the archive; not called for one that has something in it */
export async function fillData(
  dir: string,
  tree: () => AsyncIterable<Buffer>,
  signal: AbortSignal,
): Promise<void> {
  await settle(dir);
  if ((await readdir(dataDirectory(dir))).length > 0) return;
  const draft = await unpackAside(dir, tree(), signal);
  await rename(join(draft, DATA), join(dir, FILL));
  await rmdir(draft);
  await syncDirectory(dir);
  await settle(dir);
}

/** Bytes that it takes up on the host. */
export async function dataBytes(dir: string): Promise<number> {
  // du's figure counts even when a file went while it looked.
  const { stdout } = await run("du", ["-sx", "--block-size=1", "--", dataDirectory(dir)]);
  return Number.parseInt(stdout, 10) || 0;
}

/** The parts of a volume's directory that nobody speaks for any more. */
export async function sweepParts(dir: string, shared: boolean, disk: string): Promise<string[]> {
  const left = (await readdir(dir)).filter(
    (name) => name.startsWith(ASIDE) || name === (shared ? disk : DATA),
  );
  for (const name of left) await removeTree(join(dir, name));
  return left;
}

/** Whether a part of it is a file; undefined: it is neither, not there, or behind a link. */
export async function isFilePart(dir: string, part: string): Promise<boolean | undefined> {
  let path = dataDirectory(dir);
  const names = part.split("/");
  for (const [index, name] of names.entries()) {
    path = join(path, name);
    const found = await lstat(path).catch(() => undefined);
    if (found?.isDirectory() === true) continue;
    return found?.isFile() === true && index === names.length - 1 ? true : undefined;
  }
  return false;
}

/** One as an archive: a document first. @param about that document */
export function exportData(dir: string, about: string): Readable {
  const archive = new PassThrough();
  const content = Buffer.from(about);
  const header = encodeHeader({
    path: ABOUT,
    kind: "file",
    mode: 0o600,
    uid: 0,
    gid: 0,
    mtime: 0,
    mtimeNsec: 0,
    size: content.length,
    link: "",
    major: 0,
    minor: 0,
    xattrs: undefined,
  });
  archive.write(Buffer.concat([header, content, padTo(content.length)]));
  // Whoever reads the archive is told of an error by its end.
  pipeline(packTree(dataDirectory(dir)), archive).catch(() => undefined);
  return archive;
}

/** Whether an archive that begins so is of a shared volume. */
export function isSharedArchive(head: Buffer): boolean {
  return head.toString("latin1", 0, ABOUT.length + 1) === `${ABOUT}\0`;
}

/** Unpack what {@link exportData} has given. @returns its document */
export async function importData(
  from: Readable,
  dir: string,
  signal: AbortSignal,
  refuse: (why: string, cause?: unknown) => Error,
): Promise<string> {
  await unpackTree(from, dir, signal, refuse);
  const names = (await readdir(dir)).toSorted();
  const [data, about] = [dataDirectory(dir), join(dir, ABOUT)];
  if (
    names.join("/") !== [DATA, ABOUT].toSorted().join("/") ||
    !(await lstat(data)).isDirectory()
  ) {
    throw refuse(`It holds ${JSON.stringify(names.slice(0, 5))}.`);
  }
  const found = await lstat(about);
  if (!found.isFile() || found.nlink > 1 || found.size > 1 << 20) {
    throw refuse(`${ABOUT} is no plain file.`);
  }
  const text = await readFile(about, "utf8");
  await rm(about);
  await syncTree(dir);
  return text;
}
