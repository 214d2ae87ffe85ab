/** Archives that a program writes, as streams. */
import type { ChildProcess } from "node:child_process";
import type { Readable } from "node:stream";
import { PassThrough } from "node:stream";

/**
 * What a program writes to its standard output. Ends when it has ended with status 0, fails otherwise; whoever leaves the
 * stream ends the program.
 * @param child started with its standard output piped
 * @param why why it has failed, by its status
 */
export function pipedFrom(
  child: ChildProcess & { stdout: Readable },
  why: (status: number | null) => string,
): Readable {
  // Taken at once: once a program has ended, Node.js throws away what nobody has begun to read.
  const archive = new PassThrough();
  child.stdout.pipe(archive, { end: false });
  for (const source of [child, child.stdout]) {
    source.on("error", (error: Error) => archive.destroy(error));
  }
  child.once("close", (status) => {
    if (status === 0) archive.end();
    else archive.destroy(new Error(why(status)));
  });
  archive.once("close", () => child.kill());
  return archive;
}
