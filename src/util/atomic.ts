/**
 * util/: small helpers that know nothing of vmsan's nouns but its errors.
 *
 * atomic.ts: files that are either the old or the new ones, whatever is killed when.
 */
import { randomBytes } from "node:crypto";
import { mkdir, open, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";

/** How the names of temporary siblings begin. */
export const ASIDE = ".tmp-";

/** Name of a temporary sibling: same directory, so that a rename is atomic. */
export function temporarySibling(path: string): string {
  return join(dirname(path), `${ASIDE}${randomBytes(8).toString("hex")}`);
}

/** Make what was renamed into `dir` survive a power cut. */
export async function syncDirectory(dir: string): Promise<void> {
  const handle = await open(dir, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Make a file's content survive a power cut. */
export async function syncFile(path: string): Promise<void> {
  const handle = await open(path, "r");
  try {
    await handle.datasync();
  } finally {
    await handle.close();
  }
}

/**
 * Replace a file's content: written aside, synced, renamed.
 * @param mode permission bits of the new file
 * @param synced false: a power cut may cost it, the end of this process does not
 */
export async function writeFileAtomic(
  path: string,
  data: string | Uint8Array,
  mode = 0o600,
  synced = true,
): Promise<void> {
  const aside = temporarySibling(path);
  await mkdir(dirname(path), { recursive: true });
  try {
    const handle = await open(aside, "wx", mode);
    try {
      await handle.writeFile(data);
      if (synced) await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(aside, path);
    if (synced) await syncDirectory(dirname(path));
  } catch (error) {
    await rm(aside, { force: true });
    throw error;
  }
}
