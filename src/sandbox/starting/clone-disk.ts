/** A writable clone of a base image: shared blocks where the file system can, else a sparse copy. */
import { rm } from "node:fs/promises";
import { VmsanError } from "../../model/errors.ts";
import { run } from "../../util/run.ts";

/**
 * Clone a disk image. `cp` of coreutils knows FICLONE and SEEK_HOLE, neither of which Node
 * reaches; Node's own copyFile would write every hole.
 * @throws ERR_DISK_CLONE, with nothing left at `to`
 */
export async function cloneDisk(from: string, to: string, signal: AbortSignal): Promise<void> {
  const args = ["--reflink=auto", "--sparse=always", "--no-preserve=mode", "--", from, to];
  try {
    const result = await run("cp", args, { signal });
    if (result.code === 0) return;
    throw new VmsanError({
      code: "ERR_DISK_CLONE",
      message: `Cannot clone ${from} to ${to}`,
      why: result.stderr.trim(),
      fix: "Free some disk space, or use --disk-mode overlay, which copies nothing.",
    });
  } catch (error) {
    await rm(to, { force: true });
    throw error;
  }
}
