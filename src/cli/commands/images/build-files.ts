/** Files with what a build has made, for programs: `--iidfile`, `--metadata-file`. */
import { fstatSync } from "node:fs";
import type { Stats } from "node:fs";
import { lstat, open, rm } from "node:fs/promises";
import type { BuildReport } from "../../../model/api/builds.ts";
import { errnoOf } from "../../../model/errors.ts";
import { absolutePath, fsPath } from "../../../util/byte-text.ts";
import { invalid } from "../../../util/units.ts";

/** The files that were asked for. */
export interface FactFiles {
  iidfile?: string;
  metadataFile?: string;
}

/** Whether a file may have what a build before has written: no device, and not what this process's output goes to (/dev/stdout). */
function hasOld(file: Stats): boolean {
  const isOutput = [1, 2].some((fd) => {
    const { dev, ino } = fstatSync(fd);
    return dev === file.dev && ino === file.ino;
  });
  return file.isFile() && !isOutput;
}

/** Write a file, following links. */
async function put(file: string, text: string): Promise<void> {
  const handle = await open(fsPath(absolutePath(file)), "a");
  try {
    if (hasOld(await handle.stat())) await handle.truncate();
    await handle.writeFile(text);
  } finally {
    await handle.close();
  }
}

/**
 * Refuse a file that cannot be written, before the build and not after it. One of a build before is removed, so that
 * nobody takes it for this one's. @throws ERR_VALIDATION_FLAGS
 */
async function makeRoomFor(flag: string, file: string | undefined): Promise<void> {
  if (file === undefined) return;
  const path = fsPath(absolutePath(file));
  try {
    const handle = await open(path, "a");
    try {
      // A link stays what it is: what it leads to is emptied.
      if (!hasOld(await handle.stat())) return;
      if ((await lstat(path)).isSymbolicLink()) await handle.truncate();
      else await rm(path);
    } finally {
      await handle.close();
    }
  } catch (error) {
    const why = `It cannot be written: ${errnoOf(error) ?? String(error)}.`;
    throw invalid("FLAGS", flag, file, why, "Name a file in a directory of yours.");
  }
}

/** Refuse files that cannot be written, before there is something to write. @throws ERR_VALIDATION_FLAGS */
export async function makeRoom({ iidfile, metadataFile }: FactFiles): Promise<void> {
  await makeRoomFor("--iidfile", iidfile);
  await makeRoomFor("--metadata-file", metadataFile);
}

/** Write what has been made into the files that were asked for, in the words of other tools. */
export async function writeFacts(files: FactFiles, report: BuildReport): Promise<void> {
  const { iidfile, metadataFile } = files;
  if (iidfile !== undefined) await put(iidfile, report.digest);
  if (metadataFile === undefined) return;
  const facts = {
    "containerimage.digest": report.digest,
    "containerimage.config.digest": report.configDigest,
    "image.name": report.names.join(","),
  };
  await put(metadataFile, `${JSON.stringify(facts, null, 2)}\n`);
}
