/**
 * snapshots/: a VM's memory and disks as files. Takes running VMs and what their disks are, gives
 * snapshots, each complete or absent, and disks and memory for VMs made from them.
 *
 * files.ts: copies that share what can be shared: reflinks, hard links of files that nobody
 * writes any more, sparse copies.
 */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { chmod, link, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { VmsanError, errnoOf, messageOf } from "../model/errors.ts";
import type { StoredFile } from "../model/vm.ts";
import { run } from "../util/run.ts";

/** Files up to this size are read whole each time they are checked. */
const CHECKED_BYTES = 4 << 20;

/** Bytes that a file occupies, however large it seems. */
export async function allocatedBytes(path: string): Promise<number> {
  return (await stat(path)).blocks * 512;
}

/** Another one whenever the file has been written to, or is another file. */
export async function stampOf(path: string): Promise<string> {
  const { ino, size, mtimeNs } = await stat(path, { bigint: true });
  return [ino, size, mtimeNs].join("-");
}

/** `cp`, which knows reflinks and holes, neither of which Node reaches. */
async function cp(args: readonly string[], from: string, to: string): Promise<void> {
  const result = await run("cp", [...args, "--no-preserve=mode", "--", from, to]);
  if (result.code === 0) {
    await chmod(to, 0o600);
    return;
  }
  await rm(to, { force: true });
  throw new VmsanError({
    code: "ERR_SNAPSHOT_COPY",
    message: `Cannot copy ${from} to ${to}`,
    why: result.stderr.trim(),
    fix: "Free some disk space.",
  });
}

/** Copy a file with its holes; blocks are shared where the file system can. */
export async function copySparse(from: string, to: string): Promise<void> {
  await cp(["--reflink=auto", "--sparse=always"], from, to);
}

/** Copy a file by sharing its blocks. @throws where the file system cannot */
export async function reflink(from: string, to: string): Promise<void> {
  await cp(["--reflink=always"], from, to);
}

/** By file system: of each VM's directory the answer is the same. */
const reflinks = new Map<number, Promise<boolean>>();

/** Whether files in a directory can share blocks; each file system is tried once. */
export async function canReflink(dir: string): Promise<boolean> {
  const { dev } = await stat(dir);
  const known = reflinks.get(dev) ?? tryReflink(dir);
  reflinks.set(dev, known);
  try {
    return await known;
  } catch (error) {
    // A full disk says nothing of it.
    reflinks.delete(dev);
    throw error;
  }
}

/** Try it in a directory. */
async function tryReflink(dir: string): Promise<boolean> {
  const [from, to] = [join(dir, ".reflink-a"), join(dir, ".reflink-b")];
  try {
    await writeFile(from, Buffer.alloc(4096, 1), { mode: 0o600 });
    const result = await run("cp", ["--reflink=always", "--", from, to]);
    return result.code === 0;
  } finally {
    await rm(from, { force: true });
    await rm(to, { force: true });
  }
}

/** The same file under another name, for files that nobody writes; a copy on another file system. */
export async function share(from: string, to: string): Promise<void> {
  try {
    await link(from, to);
  } catch (error) {
    if (!["EXDEV", "EMLINK", "EPERM"].includes(errnoOf(error) ?? "")) throw error;
    await copySparse(from, to);
  }
}

/** Size of a file and, if it is small, its SHA-256. @param name in the directory */
export async function describeFile(dir: string, name: string): Promise<StoredFile> {
  const path = join(dir, name);
  const { size } = await stat(path);
  if (size > CHECKED_BYTES) return { name, sizeBytes: size };
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  return { name, sizeBytes: size, sha256: hash.digest("hex") };
}

/**
 * Look at files before they are trusted: sizes always, checksums of the small ones.
 * @returns what is wrong with the first that is not as it was described; undefined when all are
 */
export async function whatIsDamaged(
  dir: string,
  files: readonly StoredFile[],
): Promise<string | undefined> {
  for (const file of files) {
    let found: StoredFile;
    try {
      found = await describeFile(dir, file.name);
    } catch (error) {
      return `${file.name}: ${messageOf(error)}`;
    }
    if (found.sizeBytes !== file.sizeBytes) {
      return `${file.name} has ${found.sizeBytes} bytes instead of ${file.sizeBytes}.`;
    }
    if (file.sha256 !== undefined && found.sha256 !== file.sha256) {
      return `${file.name} has been changed since it was written.`;
    }
  }
  return undefined;
}
