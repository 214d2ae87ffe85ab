/** Files with holes as one tar archive, by the host's tar, which knows holes. */
import { spawn } from "node:child_process";
import type { Readable } from "node:stream";
import { pipedFrom, pipedInto } from "./piped.ts";

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

/**
 * Unpack an archive into an empty directory.
 * @param refuse makes the error of an archive that is none
 * @throws what {@link pipedInto} throws
 */
export async function unpackSparse(
  from: Readable,
  into: string,
  signal: AbortSignal,
  refuse: (why: string) => Error,
): Promise<void> {
  const args = ["-x", "-S", "-C", into, "--no-same-owner", "--no-same-permissions"];
  await pipedInto(from, spawn("tar", args, { stdio: ["pipe", "ignore", "pipe"] }), signal, refuse);
}
