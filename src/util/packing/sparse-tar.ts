/** Files with holes as one tar archive, by the host's tar, which knows holes. */
import { spawn } from "node:child_process";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { errnoOf, messageOf } from "../../model/errors.ts";
import { pipedFrom } from "./piped.ts";

/**
 * An archive of plain files, holes kept.
 * @param dir directory that they are in
 * @param names in the archive's order
 */
export function packSparse(dir: string, names: readonly string[]): Readable {
  const child = spawn("tar", ["-c", "-S", "-C", dir, "--owner=0", "--group=0", "--", ...names], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  return pipedFrom(child, (status) => `tar ended with status ${String(status)}`);
}

/** Codes of a write whose reader is gone. */
const LEFT = new Set(["EPIPE", "ECONNRESET", "ERR_STREAM_PREMATURE_CLOSE"]);

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
  let failed: unknown;
  try {
    await pipeline(from, child.stdin, { signal });
  } catch (error) {
    signal.throwIfAborted();
    failed = error;
  } finally {
    if (signal.aborted) child.kill("SIGKILL");
  }
  const code = await ended;
  if (code !== 0) {
    throw refuse(
      said.trim() || messageOf(failed ?? `tar ended with status ${String(code)}.`),
      failed,
    );
  }
  // A tar that has found the archive's end may be gone before we know that it has taken all.
  if (failed !== undefined && !LEFT.has(errnoOf(failed) ?? "")) {
    throw refuse(messageOf(failed), failed);
  }
}
