/** Archives of volumes with a disk, and how an archive of either kind begins. */
import { lstat, readFile, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";
import { readState } from "../ext4/reading/label.ts";
import { messageOf } from "../model/errors.ts";
import type { VolumeRecord } from "../model/volume.ts";
import { parseVolumeRecord } from "../schema/state.ts";
import { archiveError } from "./errors.ts";

/** Names of a volume's document and of its disk. */
export const DOCUMENT = "volume.json";
/** See {@link DOCUMENT}. */
export const DISK = "volume.ext4";
/** Bytes by which the kinds of archives are told apart. */
const HEAD_BYTES = 64;

/** What was unpacked: a description and a disk, plain files, nothing else. @throws ERR_VOLUME_ARCHIVE */
export async function checkUnpacked(dir: string): Promise<VolumeRecord> {
  const names = (await readdir(dir)).toSorted();
  if (names.join("/") !== [DISK, DOCUMENT].toSorted().join("/")) {
    throw archiveError(`It holds ${JSON.stringify(names.slice(0, 5))}.`);
  }
  for (const name of names) {
    const { isFile, nlink } = await lstat(join(dir, name)).then((info) => ({
      isFile: info.isFile(),
      nlink: info.nlink,
    }));
    if (!isFile || nlink > 1) throw archiveError(`${name} is no plain file.`);
  }
  const { size } = await stat(join(dir, DISK));
  const state = await readState(join(dir, DISK));
  if (state === undefined || state.sizeBytes > size) {
    throw archiveError(`${DISK} is no whole ext4 file system.`);
  }
  return parseDocument(await readFile(join(dir, DOCUMENT), "utf8"));
}

/** The document in an archive. @throws ERR_VOLUME_ARCHIVE */
export function parseDocument(text: string): VolumeRecord {
  try {
    return parseVolumeRecord(JSON.parse(text));
  } catch (error) {
    throw archiveError(messageOf(error), error);
  }
}

/** How a stream begins, and a stream of that and all that follows. */
export async function beginning(from: Readable): Promise<{ head: Buffer; whole: Readable }> {
  const pieces = from[Symbol.asyncIterator]() as AsyncIterator<Uint8Array>;
  let head = Buffer.alloc(0);
  while (head.length < HEAD_BYTES) {
    const piece = await pieces.next();
    if (piece.done === true) break;
    head = Buffer.concat([head, piece.value]);
  }
  const rest = { [Symbol.asyncIterator]: () => pieces };
  const whole = Readable.from(
    (async function* () {
      if (head.length > 0) yield head;
      yield* rest;
    })(),
  );
  return { head, whole };
}
