/** Temporary directories (atomic.ts names them) of writers that share a directory and its lock. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { errnoOf } from "../../model/errors.ts";
import { ASIDE } from "../atomic.ts";
import { tryLock } from "../lock.ts";

/**
 * Remove the temporary directories in `dir`; with its lock held, so that nobody uses them.
 * Temporary files stay: writeFileAtomic() needs no lock.
 * @returns their names
 */
export async function removeAbandoned(
  dir: string,
  remove: (path: string) => Promise<void>,
): Promise<string[]> {
  const entries = await readdir(dir, { withFileTypes: true });
  const names = entries
    .filter((entry) => entry.isDirectory() && entry.name.startsWith(ASIDE))
    .map(({ name }) => name);
  for (const name of names) await remove(join(dir, name));
  return names;
}

/**
 * The same, for those who do not hold the lock `dir/.lock`: nothing is removed while somebody
 * works there.
 * @returns the names of what was removed
 */
export async function sweepAbandoned(
  dir: string,
  remove: (path: string) => Promise<void>,
): Promise<string[]> {
  try {
    if (!(await readdir(dir)).some((name) => name.startsWith(ASIDE))) return [];
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return [];
    throw error;
  }
  const held = tryLock(join(dir, ".lock"));
  if (held === undefined) return [];
  try {
    return await removeAbandoned(dir, remove);
  } finally {
    held.release();
  }
}
