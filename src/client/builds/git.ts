/** Contexts that a git repository of this host has committed: `DIR#REF[:SUBDIRECTORY]`. */
import { spawn } from "node:child_process";
import { stat } from "node:fs/promises";
import type { Readable } from "node:stream";
import { PassThrough } from "node:stream";
import { VmsanError } from "../../model/errors.ts";
import { absolutePath, fsPath } from "../../util/byte-text.ts";
import { run } from "../../util/run.ts";

/** The error for a context that git does not give. */
function gitError(context: string, why: string): VmsanError {
  return new VmsanError({
    code: "ERR_BUILD_CONTEXT",
    message: `Cannot build ${context}`,
    why,
    fix: "Give a directory, or DIR#REF[:SUBDIRECTORY] of a git repository on this host; an address has to be cloned first.",
  });
}

/**
 * The committed files that a context names, as a tar archive.
 * @returns undefined when the context is a directory as it stands
 * @throws ERR_BUILD_CONTEXT for an address, or what git does not know
 */
export async function commitOf(context: string): Promise<Readable | undefined> {
  const there = await stat(fsPath(absolutePath(context))).catch(() => undefined); // ENOENT: no such directory
  if (there !== undefined) return undefined;
  if (/^(?:[a-z+]+:\/\/|git@|github\.com\/)/i.test(context)) {
    throw gitError(context, "Contexts are not fetched from other machines.");
  }
  const match = /^([^#]+)#([^:]*)(?::(.*))?$/s.exec(context);
  if (match === null) return undefined;
  const [, dir = "", ref = "", below = ""] = match;
  const git = ["-C", absolutePath(dir)];
  const words = [
    "rev-parse",
    "--verify",
    "--quiet",
    "--end-of-options",
    `${ref === "" ? "HEAD" : ref}^{commit}`,
  ];
  const found = await run("git", [...git, ...words]);
  const commit = found.stdout.trim();
  if (found.code !== 0 || !/^[0-9a-f]{40,64}$/.test(commit)) {
    const known = found.stderr.trim();
    throw gitError(context, known === "" ? `There is no commit ${JSON.stringify(ref)}.` : known);
  }
  const tree = below === "" ? commit : `${commit}:${below.replace(/^\/+|\/+$/g, "")}`;
  const child = spawn("git", [...git, "archive", "--format=tar", tree], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  let said = "";
  child.stderr
    .setEncoding("utf8")
    .on("data", (text: string) => (said = (said + text).slice(-1000)));
  const out = new PassThrough();
  child.stdout.pipe(out, { end: false });
  child.on("error", (error) => out.destroy(gitError(context, error.message)));
  child.on("close", (code) => {
    if (code === 0) out.end();
    else out.destroy(gitError(context, said.trim() || `git ended with status ${code}.`));
  });
  out.on("close", () => child.kill());
  return out;
}
