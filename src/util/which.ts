/** Finds programs without starting another one. */
import { constants } from "node:fs";
import { access, stat } from "node:fs/promises";
import { delimiter, isAbsolute, join } from "node:path";

/** Where a distribution keeps programs, also those that an ordinary user's PATH leaves out. */
const systemPath = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/** PATH with the system's directories after the user's own. */
export function fullPath(environment: NodeJS.ProcessEnv = process.env): string {
  const own = (environment["PATH"] ?? "").split(delimiter).filter((dir) => isAbsolute(dir));
  return [...new Set([...own, ...systemPath])].join(delimiter);
}

/** Absolute path of an executable file with that name on {@link fullPath}; undefined if none. */
export async function which(name: string): Promise<string | undefined> {
  for (const dir of fullPath().split(delimiter)) {
    const path = join(dir, name);
    try {
      await access(path, constants.X_OK);
      if ((await stat(path)).isFile()) return path;
    } catch {
      // ENOENT, EACCES …: not here; the next directory is asked.
    }
  }
  return undefined;
}
