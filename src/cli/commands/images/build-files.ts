/** Files with what a build has made, for programs: `--iidfile`, `--metadata-file`. */
import { open, rm, writeFile } from "node:fs/promises";
import type { BuildReport } from "../../../model/api.ts";
import { errnoOf } from "../../../model/errors.ts";
import { absolutePath, fsPath } from "../../../util/byte-text.ts";
import { invalid } from "../../../util/units.ts";

/** The files that were asked for. */
export interface FactFiles {
  iidfile?: string;
  metadataFile?: string;
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
    const regular = (await handle.stat()).isFile();
    await handle.close();
    if (regular) await rm(path);
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
  if (iidfile !== undefined) await writeFile(fsPath(absolutePath(iidfile)), report.digest);
  if (metadataFile === undefined) return;
  const facts = {
    "containerimage.digest": report.digest,
    "containerimage.config.digest": report.configDigest,
    "image.name": report.names.join(","),
  };
  await writeFile(fsPath(absolutePath(metadataFile)), `${JSON.stringify(facts, null, 2)}\n`);
}
