/** Files that a call sends to the daemon. */
import { constants, createReadStream } from "node:fs";
import { access, stat } from "node:fs/promises";
import type { Readable } from "node:stream";
import { VmsanError, messageOf } from "../model/errors.ts";
import { absolutePath, fsPath } from "../util/byte-text.ts";

/**
 * Makes a stream of what is to be sent, at each try anew where it is a file. That it can be read is seen before the daemon is
 * asked: a request that breaks off in the middle looks as if the daemon had ended.
 * @throws ERR_FILE_UNREADABLE
 */
export async function uploadOf(from: string | Readable): Promise<() => Readable> {
  if (typeof from !== "string") return () => from;
  const path = fsPath(absolutePath(from));
  try {
    // Not by opening it: whoever writes to a named pipe would lose its reader.
    await access(path, constants.R_OK);
    if ((await stat(path)).isDirectory()) throw new Error("it is a directory");
  } catch (error) {
    throw new VmsanError(
      {
        code: "ERR_FILE_UNREADABLE",
        message: `Cannot read ${from}`,
        why: messageOf(error),
        fix: "Name a file that is there and that you may read.",
      },
      error,
    );
  }
  return () => createReadStream(path);
}
