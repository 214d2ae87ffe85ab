/** Files with holes as one tar archive, by the host's tar, which knows holes. */
import { spawn } from "node:child_process";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { messageOf } from "../../model/errors.ts";

/**
 * An archive of plain files, holes kept.
 * @param dir directory that they are in
 * @param names in the archive's order
 */
export function packSparse(dir: string, names: readonly string[]): Readable {
  const child = spawn("tar", ["-c", "-S", "-C", dir, "--owner=0", "--group=0", "--", ...names], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  child.on("error", (error) => child.stdout.destroy(error));
  child.once("exit", (code) => {
    if (code !== 0) child.stdout.destroy(new Error(`tar ended with status ${String(code)}`));
  });
  child.stdout.once("close", () => child.kill());
  return child.stdout;
}

/**
 * Unpack an archive into an empty directory.
 * @param refuse makes the error of an archive that is none
 */
export async function unpackSparse(
  from: Readable,
  into: string,
  signal: AbortSignal,
  refuse: (why: string, cause?: unknown) => Error,
): Promise<void> {
  const args = ["-x", "-S", "-C", into, "--no-same-owner", "--no-same-permissions"];
  const child = spawn("tar", args, { stdio: ["pipe", "ignore", "pipe"] });
  let said = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => (said = (said + text).slice(-500)));
  const ended = new Promise<number | null>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", resolve);
  });
  try {
    await pipeline(from, child.stdin, { signal });
  } catch (error) {
    signal.throwIfAborted();
    // tar has ended early; what it said is the reason.
    if (said === "") throw refuse(messageOf(error), error);
  } finally {
    if (signal.aborted) child.kill("SIGKILL");
  }
  const code = await ended;
  if (code !== 0) throw refuse(said.trim() || `tar ended with status ${String(code)}.`);
}
