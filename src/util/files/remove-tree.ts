/** Removing what a guest or an image has made. */
import { rm } from "node:fs/promises";
import { errnoOf } from "../../model/errors.ts";
import { run } from "../run.ts";

/** Why Node.js cannot remove a tree that its owner, who is no root, may not enter or that is deeper than a path may be long. */
const BEYOND_NODE = new Set(["EACCES", "EPERM", "ENOTEMPTY", "ENAMETOOLONG"]);

/**
 * Remove a tree whatever its depth and its modes; no error when there is none.
 * @throws the system's error, or what `rm` says
 */
export async function removeTree(dir: string): Promise<void> {
  try {
    await rm(dir, { recursive: true, force: true });
  } catch (error) {
    if (!BEYOND_NODE.has(errnoOf(error) ?? "")) throw error;
    // What this cannot change `rm` may be able to remove all the same, or say why not.
    await run("chmod", ["-R", "u+rwX", "--", dir]);
    const { code, stderr } = await run("rm", ["-rf", "--", dir]);
    if (code !== 0) throw new Error(stderr.trim(), { cause: error });
  }
}
