/** Archives that a program writes or unpacks, as streams. */
import type { ChildProcess } from "node:child_process";
import { PassThrough } from "node:stream";
import type { Readable, Writable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { missingProgram } from "../run.ts";

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

/** Last characters of what a program says that are kept. */
const SAID = 500;

/**
 * Have a program unpack an archive from its standard input. It may end before it has been given all: it knows where
 * archives end.
 * @param child started with its standard input and error output piped; killed when the archive breaks off
 * @param refuse makes the error of an archive that the program does not take
 * @throws what `from` fails with, the signal's reason, ERR_SETUP_MISSING_BINARY
 */
export async function pipedInto(
  from: Readable,
  child: ChildProcess & { stdin: Writable; stderr: Readable },
  signal: AbortSignal,
  refuse: (why: string) => Error,
): Promise<void> {
  let said = "";
  child.stderr
    .setEncoding("utf8")
    .on("data", (text: string) => (said = (said + text).slice(-SAID)));
  const ended = new Promise<number | null | Error>((resolve) => {
    child.once("error", (error) => resolve(missingProgram(child.spawnfile, error)));
    child.once("close", resolve);
  });
  let cut: { by: unknown } | undefined;
  const archive = async function* (): AsyncGenerator<Buffer> {
    try {
      yield* from as AsyncIterable<Buffer>;
    } catch (error) {
      cut = { by: error };
      throw error;
    }
  };
  try {
    await pipeline(archive, child.stdin, { signal });
  } catch {
    // Told below: an end of what comes is cut or the signal's, one of the program is in its status.
    if (cut !== undefined || signal.aborted) child.kill("SIGKILL");
  }
  const end = await ended;
  signal.throwIfAborted();
  if (end instanceof Error) throw end;
  if (cut !== undefined) throw cut.by;
  if (end !== 0) throw refuse(said.trim() || `it ended with status ${String(end)}`);
}
