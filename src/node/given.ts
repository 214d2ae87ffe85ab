/** Files that people name in flags. */
import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { messageOf } from "../model/errors.ts";
import { invalid } from "../util/units.ts";

/** A file's text. @param flag without dashes, e.g. `client-ca` @throws ERR_VALIDATION_FLAGS */
export async function readGiven(flag: string, path: string): Promise<string> {
  try {
    return await readFile(resolve(path), "utf8");
  } catch (error) {
    throw invalid("FLAGS", flag, path, messageOf(error), `Name a file to read: --${flag} FILE.`);
  }
}
