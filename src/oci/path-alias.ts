/** Files whose names are not UTF-8, under a name that readers and programs take. */
import { randomBytes } from "node:crypto";
import { symlink } from "node:fs/promises";
import { join } from "node:path";
import { VmsanError } from "../model/errors.ts";
import { bytesOfText, holdsBytes } from "../util/byte-text.ts";

/**
 * Use a source by a path that is text: where its own is none (util/byte-text.ts), by a symbolic link.
 * Errors speak of the source's own path.
 * @param dir for the link, which stays as long as the directory does
 */
export async function withTextPath<S extends { path: string }, T>(
  source: S,
  dir: string,
  body: (source: S) => Promise<T>,
): Promise<T> {
  if (!holdsBytes(source.path)) return await body(source);
  const alias = join(dir, `path-${randomBytes(6).toString("hex")}`);
  await symlink(bytesOfText(source.path), alias);
  try {
    return await body({ ...source, path: alias });
  } catch (error) {
    if (!(error instanceof VmsanError)) throw error;
    const { code, message, why, fix, details } = error;
    const own = (text: string): string => text.replaceAll(alias, source.path);
    throw new VmsanError(
      {
        code,
        message: own(message),
        ...(why === undefined ? {} : { why: own(why) }),
        ...(fix === undefined ? {} : { fix: own(fix) }),
        ...(details === undefined ? {} : { details }),
      },
      error,
    );
  }
}
