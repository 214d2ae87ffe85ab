/** A snapshot as one file, for another host: its files and the disks that it shares, in a tar archive. */
import { lstat, readFile, readdir, rm } from "node:fs/promises";
import { isAbsolute, join } from "node:path";
import type { Readable } from "node:stream";
import { VmsanError, messageOf } from "../../model/errors.ts";
import type { Mount } from "../../model/mount.ts";
import type { SnapshotRecord } from "../../model/snapshot.ts";
import { parseSnapshotRecord } from "../../schema/state.ts";
import { asCopy, isVolume } from "../../snapshots/disks.ts";
import { share } from "../../snapshots/files.ts";
import { whatIsForeign } from "../../snapshots/qcow2.ts";
import type { SnapshotStore } from "../../snapshots/store.ts";
import { writeFileAtomic } from "../../util/atomic.ts";
import { servedOf, volumesOf } from "../starting/mounts.ts";
import { packSparse, unpackSparse } from "../../util/packing/sparse-tar.ts";

/** The description of a snapshot in its archive. */
const DOCUMENT = "snapshot.json";
/** What may be in an archive: one directory deep, plain names. */
const NAME = /^[a-z0-9][a-z0-9.-]{0,63}$/;

/** An archive that is none. */
function archiveError(why: string, cause?: unknown): VmsanError {
  return new VmsanError(
    {
      code: "ERR_SNAPSHOT_ARCHIVE",
      message: "Cannot read the archive of a snapshot",
      why,
      fix: "Give a file that `vmsan snapshot export` has written.",
    },
    cause,
  );
}

/**
 * A snapshot as a tar archive, holes kept. What the archive is made of goes when it has been read
 * to its end or is destroyed.
 */
export async function exportSnapshot(
  store: SnapshotStore,
  record: SnapshotRecord,
): Promise<Readable> {
  const { draft } = await store.begin();
  try {
    const from = store.dir(record.id);
    // Flat: of memory in two forms the archive has the one that can be shared.
    const files = record.files.map((file) => ({
      ...file,
      name: file.name.split("/").at(-1) ?? "",
    }));
    for (const [index, { name }] of record.files.entries()) {
      await share(join(from, name), join(draft, files[index]?.name ?? name));
    }
    const disks = [...record.disks];
    for (const [index, disk] of disks.entries()) {
      if (!isAbsolute(disk.path)) continue;
      const name = `disk${index}-base.ext4`;
      await share(disk.path, join(draft, name));
      disks[index] = asCopy({ ...disk, path: name });
    }
    const mounts = record.mounts?.map((mount): Mount =>
      mount.kind === "volume" ? { ...mount, copy: true as const } : mount,
    );
    const whole = { ...record, files, disks, ...(mounts && { mounts }) };
    await writeFileAtomic(join(draft, DOCUMENT), `${JSON.stringify(whole, null, 2)}\n`);
    const names = (await readdir(draft)).toSorted();
    // The description first: who reads the archive can refuse it early.
    const order = [DOCUMENT, ...names.filter((name) => name !== DOCUMENT)];
    const archive = packSparse(draft, order);
    // Nobody waits for it; a daemon's start removes what stays.
    archive.once("close", () => void store.discard(draft).catch(() => undefined));
    return archive;
  } catch (error) {
    await store.discard(draft);
    throw error;
  }
}

/** Why a layer from elsewhere is not given to a VMM. */
async function foreignLayer(path: string): Promise<string | undefined> {
  try {
    return await whatIsForeign(path);
  } catch (error) {
    return `cannot be read: ${messageOf(error)}`;
  }
}

/** The description in an unpacked archive; everything else in it must be a plain file that it names. */
async function checkUnpacked(dir: string): Promise<SnapshotRecord> {
  for (const name of await readdir(dir)) {
    const info = await lstat(join(dir, name));
    if (!info.isFile() || !NAME.test(name))
      throw archiveError(`${JSON.stringify(name)} is not allowed in it.`);
  }
  let record: SnapshotRecord;
  try {
    record = parseSnapshotRecord(JSON.parse(await readFile(join(dir, DOCUMENT), "utf8")));
  } catch (error) {
    throw archiveError(messageOf(error), error);
  }
  // They would be this host's.
  const { disks } = record;
  if (servedOf(record).length + volumesOf(record).length > 0 || disks.some(isVolume)) {
    throw archiveError("It shares directories or volumes of the host that it was made on.");
  }
  for (const { path, backing = [] } of disks) {
    if (isAbsolute(path)) throw archiveError(`The disk ${path} is not in it.`);
    // The lowest layer is raw: nothing in it means anything to a VMM.
    for (const layer of [...backing, path].slice(1)) {
      const why = await foreignLayer(join(dir, layer));
      if (why !== undefined) throw archiveError(`The disk ${layer} ${why}.`);
    }
  }
  return record;
}

/**
 * Take in an archive.
 * @param rename chooses the name, or refuses it, before anything is kept
 */
export async function importSnapshot(
  store: SnapshotStore,
  from: Readable,
  signal: AbortSignal,
  rename: (record: SnapshotRecord) => SnapshotRecord,
): Promise<SnapshotRecord> {
  const { id: free, draft } = await store.begin();
  try {
    await unpackSparse(from, draft, signal, archiveError);
    const read = rename(await checkUnpacked(draft));
    await rm(join(draft, DOCUMENT));
    await store.verifyIn(read, draft);
    const taken = store.list().some(({ id }) => id === read.id);
    // What another host calls a project is nobody's here, and an archive puts no VM into our networks.
    const { files: _described, project: _theirs, networks: _others, ...rest } = read;
    return await store.commit(draft, { ...rest, id: taken ? free : read.id });
  } catch (error) {
    await store.discard(draft);
    throw error;
  }
}
