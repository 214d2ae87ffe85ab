/** Trees of files as archives, by the program that reads and writes what Node.js cannot: holes, attributes, links. */
import { spawn } from "node:child_process";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { fileServerBinary } from "../util/package.ts";
import { pipedFrom } from "../util/packing/piped.ts";
import { missingProgram } from "../util/run.ts";

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
 */
export async function unpackTree(
  from: Readable,
  into: string,
  signal: AbortSignal,
  refuse: (why: string, cause?: unknown) => Error,
): Promise<void> {
  const child = spawn(fileServerBinary(), ["--unpack", into], {
    stdio: ["pipe", "ignore", "pipe"],
  });
  let said = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => (said = (said + text).slice(-500)));
  const ended = new Promise<number | null | Error>((resolve) => {
    child.on("error", (error) => resolve(missingProgram(fileServerBinary(), error)));
    child.on("close", resolve);
  });
  let failed: unknown;
  try {
    await pipeline(from, child.stdin, { signal });
  } catch (error) {
    failed = error;
    child.kill("SIGKILL");
  }
  const code = await ended;
  signal.throwIfAborted();
  if (code instanceof Error) throw code;
  // It reads to the end of what comes: when that could not be given, its own end is the consequence, unless it has said why.
  if (code !== 0 && said !== "") throw refuse(said.trim(), failed);
  if (failed !== undefined) throw failed;
  if (code !== 0) throw refuse(`it ended with status ${String(code)}`);
}
