/** Which directory a path leads to, and which one a process works in. */
import { mkdirSync, readlinkSync, realpathSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { errnoOf } from "../../model/errors.ts";

/** Whether there is such a directory (or file). */
function lookAt(path: string): { dev: number; ino: number } | undefined {
  return statSync(path, { throwIfNoEntry: false });
}

/** Whether two paths lead to one directory, also by way of links. */
export function isSameDirectory(one: string, other: string): boolean {
  if (one === other) return true;
  const [a, b] = [lookAt(one), lookAt(other)];
  return a !== undefined && b !== undefined && a.dev === b.dev && a.ino === b.ino;
}

/** A path without links; as it is when there is no such file. */
export function withoutLinks(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    // ENOENT, ENOTDIR: what has been removed has no other name.
    return path;
  }
}

/**
 * Absolute path of the directory that a process works in, also of one that has been removed;
 * undefined when the process is gone or not ours to see.
 */
export function workingDirectory(pid: number): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/cwd`).replace(/ \(deleted\)$/, "");
  } catch {
    // ENOENT, ESRCH: it has ended; EACCES: another user's.
    return undefined;
  }
}

/**
 * Whether a working directory is a directory or below it.
 * @param real the directory's path without links, for those who ask about many processes
 */
export function isBelow(cwd: string | undefined, dir: string, real = withoutLinks(dir)): boolean {
  const inside = (of: string): boolean => cwd === of || cwd?.startsWith(`${of}/`) === true;
  return inside(dir) || inside(real);
}

/** Whether a process works in a directory or below it. */
export function worksIn(pid: number, dir: string): boolean {
  return isBelow(workingDirectory(pid), dir);
}

/**
 * Whether a process certainly works in another directory of this one's name: then it belongs to
 * whoever has that one. Of a process in a jail nothing is known.
 */
export function worksInNamesake(pid: number, dir: string): boolean {
  const name = dir.slice(dir.lastIndexOf("/") + 1);
  const cwd = workingDirectory(pid);
  return cwd !== undefined && cwd.split("/").includes(name) && !worksIn(pid, dir);
}

/**
 * Make a directory that only this user can enter, with those above it.
 * @throws the system's error: Node's recursive mkdir says ENOENT where the system said EROFS or EDQUOT
 */
export function makeDirectory(path: string): void {
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 });
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
    let missing = path;
    while (lookAt(dirname(missing)) === undefined) missing = dirname(missing);
    mkdirSync(missing, { mode: 0o700 });
    mkdirSync(path, { recursive: true, mode: 0o700 });
  }
}
