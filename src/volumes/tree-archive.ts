/** Trees of files as archives, by the program that reads and writes what Node.js cannot: holes, attributes, links. */
import { spawn } from "node:child_process";
import type { Readable } from "node:stream";
import { fileServerBinary } from "../util/package.ts";
import { pipedFrom, pipedInto } from "../util/packing/piped.ts";

/** An archive of a directory, in which that has its name. Fails when a file cannot be read. @param dir absolute path */
export function packTree(dir: string): Readable {
  const child = spawn(fileServerBinary(), ["--pack", dir], { stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => (said = (said + text).slice(-500)));
  return pipedFrom(child, (status) => said.trim() || `it ended with status ${String(status)}`);
}

/**
 * Unpack an archive into a directory: nothing outside of it is touched, devices are left out, owners are kept where this
 * process may give files away.
 * @param into absolute path
 * @param refuse makes the error of an archive that is none
 * @throws what {@link pipedInto} throws
 */
export async function unpackTree(
  from: Readable,
  into: string,
  signal: AbortSignal,
  refuse: (why: string) => Error,
): Promise<void> {
  const child = spawn(fileServerBinary(), ["--unpack", into], {
    stdio: ["pipe", "ignore", "pipe"],
  });
  await pipedInto(from, child, signal, refuse);
}
