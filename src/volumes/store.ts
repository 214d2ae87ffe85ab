/**
 * volumes/: file systems with a name. Takes names and sizes, gives disks for VMs; knows no VM: who
 * may use which one is the composer's affair.
 *
 * store.ts: a directory a volume, complete or absent, with its disk and one document.
 */
import { randomBytes } from "node:crypto";
import { lstat, mkdir, open, readFile, readdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { createEmptyDisk } from "../ext4/empty.ts";
import { growDisk } from "../ext4/grow.ts";
import { readState, writeLabel } from "../ext4/reading/label.ts";
import { VmsanError, errnoOf, messageOf } from "../model/errors.ts";
import type { VolumeRecord, VolumeRequest } from "../model/volume.ts";
import { parseVolumeRecord } from "../schema/state.ts";
import { ASIDE, syncDirectory, temporarySibling, writeFileAtomic } from "../util/atomic.ts";
import { parseVolumeName } from "../util/mounts.ts";
import { packSparse, unpackSparse } from "../util/packing/sparse-tar.ts";

const DOCUMENT = "volume.json";
const DISK = "volume.ext4";

/** A new label; the guest's agent knows the beginning (guest/internal/blockdev). */
function newLabel(): string {
  return `vmsan-v${randomBytes(5).toString("hex").slice(0, 9)}`;
}

/** A volume's disk as a VM gets it. */
export interface VolumeDisk {
  /** Absolute path of the raw image. */
  path: string;
  /** Label of its file system. */
  label: string;
  /** Whoever wrote last was cut off: it can be read only once somebody has mounted it for writing. */
  needsRecovery: boolean;
}

/** No volume has that name. */
function notFound(name: string): VmsanError {
  return new VmsanError({
    code: "ERR_VOLUME_NOT_FOUND",
    message: `No volume ${name}`,
    why: "No volume has that name.",
    fix: `\`vmsan volume ls\` lists all; \`vmsan volume create ${name}\` makes it.`,
  });
}

/** There is one of that name. */
function exists(name: string): VmsanError {
  return new VmsanError({
    code: "ERR_VOLUME_NAME_TAKEN",
    message: `Cannot make a volume ${name}`,
    why: "There is one of that name.",
    fix: `Choose another name, or remove it: vmsan volume rm ${name}`,
  });
}

/** An archive that is none. */
function archiveError(why: string, cause?: unknown): VmsanError {
  return new VmsanError(
    {
      code: "ERR_VOLUME_ARCHIVE",
      message: "Cannot read the archive of a volume",
      why,
      fix: "Give a file that `vmsan volume export` has written.",
    },
    cause,
  );
}

/** The volumes of one VMSAN_DIR. */
export class VolumeStore {
  private readonly root: string;
  /** Volumes that are being made larger, or read into an archive. */
  private readonly busy = new Map<string, "grown" | "exported">();

  /** @param root absolute path of their directory */
  constructor(root: string) {
    this.root = root;
  }

  /** Path of a volume's disk. */
  diskPath(name: string): string {
    return join(this.root, parseVolumeName(name), DISK);
  }

  /** Remove what a killed process has left half-made. @returns what was removed */
  async sweep(): Promise<string[]> {
    const drafts = (await this.names()).filter((name) => name.startsWith(ASIDE));
    for (const name of drafts) await rm(join(this.root, name), { recursive: true, force: true });
    return drafts;
  }

  private async names(): Promise<string[]> {
    try {
      return await readdir(this.root);
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return [];
      throw error;
    }
  }

  /** All volumes by name; of one whose document cannot be read, why. */
  async list(): Promise<(VolumeRecord & { damaged?: string })[]> {
    const names = (await this.names()).filter((name) => !name.startsWith("."));
    return await Promise.all(
      names.toSorted().map(async (name) => {
        try {
          return await this.get(name);
        } catch (error) {
          const why = error instanceof VmsanError ? (error.why ?? error.message) : messageOf(error);
          const { birthtime } = await stat(join(this.root, name));
          const createdAt = birthtime.toISOString();
          return { schema: 1, name, createdAt, labels: {}, fsLabel: "", damaged: why };
        }
      }),
    );
  }

  /** Whether there is such a volume. */
  async has(name: string): Promise<boolean> {
    return (await this.names()).includes(parseVolumeName(name));
  }

  /** One volume. @throws ERR_VOLUME_NOT_FOUND, ERR_VOLUME_DAMAGED */
  async get(name: string): Promise<VolumeRecord> {
    const path = join(this.root, parseVolumeName(name), DOCUMENT);
    try {
      return parseVolumeRecord(JSON.parse(await readFile(path, "utf8")));
    } catch (error) {
      if (errnoOf(error) === "ENOENT") throw notFound(name);
      throw damaged(name, messageOf(error));
    }
  }

  /** Bytes of a volume's disk: as guests see it, and allocated; none when it is missing. */
  async sizes(name: string): Promise<{ sizeBytes: number; storedBytes: number }> {
    try {
      const { size, blocks } = await stat(this.diskPath(name));
      return { sizeBytes: size, storedBytes: blocks * 512 };
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return { sizeBytes: 0, storedBytes: 0 };
      throw error;
    }
  }

  /** Make a volume. @throws ERR_VOLUME_NAME_TAKEN */
  async create(request: VolumeRequest): Promise<VolumeRecord> {
    const { name, sizeBytes, labels } = request;
    const fsLabel = newLabel();
    const record: VolumeRecord = {
      schema: 1,
      name: parseVolumeName(name),
      createdAt: new Date().toISOString(),
      labels,
      fsLabel,
    };
    return await this.add(record, async (dir) => {
      const directories = ["data"];
      const options = { sizeBytes, journal: true, label: fsLabel, directories };
      await createEmptyDisk(join(dir, DISK), options);
    });
  }

  /** Fill a directory aside, then give it its name. */
  private async add(
    record: VolumeRecord,
    fill: (dir: string) => Promise<void>,
  ): Promise<VolumeRecord> {
    await mkdir(this.root, { recursive: true, mode: 0o700 });
    const place = join(this.root, record.name);
    const draft = temporarySibling(place);
    await mkdir(draft, { mode: 0o700 });
    try {
      await fill(draft);
      await syncFile(join(draft, DISK));
      await writeFileAtomic(join(draft, DOCUMENT), `${JSON.stringify(record, null, 2)}\n`);
      // Never over another one: its directory is not empty.
      await rename(draft, place);
      await syncDirectory(this.root);
      return record;
    } catch (error) {
      await rm(draft, { recursive: true, force: true });
      if (["ENOTEMPTY", "EEXIST"].includes(errnoOf(error) ?? "")) throw exists(record.name);
      throw error;
    }
  }

  /** Remove a volume, which nobody may use. @returns bytes that it took */
  async remove(name: string): Promise<number> {
    if (!(await this.has(name))) throw notFound(name);
    this.requireIdle(name, `Cannot remove the volume ${name}`);
    const { storedBytes } = await this.sizes(name);
    const place = join(this.root, name);
    const gone = temporarySibling(place);
    await rename(place, gone);
    await rm(gone, { recursive: true, force: true });
    return storedBytes;
  }

  /**
   * A volume's disk, ready to be attached: with the label that it had when it was made, whatever a
   * guest has made of that.
   * @param readonly whether it will only be read
   * @throws ERR_VOLUME_NOT_FOUND, ERR_VOLUME_DAMAGED, ERR_VOLUME_IN_USE
   */
  async disk(name: string, readonly: boolean): Promise<VolumeDisk> {
    const { fsLabel } = await this.get(name);
    const reads = readonly && this.busy.get(name) === "exported";
    if (!reads) this.requireIdle(name, `Cannot mount the volume ${name}`);
    const path = this.diskPath(name);
    const state = await readState(path);
    const { sizeBytes } = await this.sizes(name);
    if (state === undefined || state.sizeBytes > sizeBytes) {
      throw damaged(name, `${path} is no whole ext4 file system.`);
    }
    if (state.label !== fsLabel) await writeLabel(path, fsLabel);
    return { path, label: fsLabel, needsRecovery: state.needsRecovery };
  }

  /** Refuse a volume that something is done to. @throws ERR_VOLUME_IN_USE */
  private requireIdle(name: string, message: string): void {
    const what = this.busy.get(name);
    if (what === undefined) return;
    throw new VmsanError({
      code: "ERR_VOLUME_IN_USE",
      message,
      why: `It is being ${what}.`,
      fix: "Try again when that is done.",
    });
  }

  /** Volumes only grow. @throws ERR_VOLUME_NOT_FOUND, ERR_VOLUME_SIZE */
  async checkGrowth(name: string, sizeBytes: number): Promise<void> {
    await this.get(name);
    const has = (await this.sizes(name)).sizeBytes;
    if (sizeBytes < has) {
      throw new VmsanError({
        code: "ERR_VOLUME_SIZE",
        message: `Cannot make the volume ${name} ${sizeBytes} bytes large`,
        why: `It has ${has} bytes, and volumes only grow.`,
        fix: "Ask for more, or make a new volume and copy.",
      });
    }
  }

  /** Make the disk of a volume that nobody uses larger. @throws ERR_VOLUME_SIZE, ERR_DISK_GROW */
  async grow(name: string, sizeBytes: number): Promise<void> {
    await this.checkGrowth(name, sizeBytes);
    if (sizeBytes === (await this.sizes(name)).sizeBytes) return;
    this.requireIdle(name, `Cannot grow the volume ${name}`);
    this.busy.set(name, "grown");
    try {
      await growDisk(this.diskPath(name), sizeBytes);
    } finally {
      this.busy.delete(name);
    }
  }

  /** A volume that nobody writes to as an archive; holes are kept. */
  async export(name: string): Promise<Readable> {
    await this.get(name);
    this.requireIdle(name, `Cannot export the volume ${name}`);
    this.busy.set(name, "exported");
    const archive = packSparse(join(this.root, name), [DOCUMENT, DISK]);
    archive.once("close", () => this.busy.delete(name));
    return archive;
  }

  /**
   * Take in what {@link export} has written.
   * @param name of the volume here
   * @throws ERR_VOLUME_ARCHIVE, ERR_VOLUME_NAME_TAKEN
   */
  async import(name: string, from: Readable, signal: AbortSignal): Promise<VolumeRecord> {
    const record: VolumeRecord = {
      schema: 1,
      name: parseVolumeName(name),
      createdAt: new Date().toISOString(),
      labels: {},
      // Another one than its original has: a VM may mount both.
      fsLabel: newLabel(),
    };
    return await this.add(record, async (dir) => {
      await unpackSparse(from, dir, signal, archiveError);
      record.labels = (await checkUnpacked(dir)).labels;
      await writeLabel(join(dir, DISK), record.fsLabel);
      await rm(join(dir, DOCUMENT));
    });
  }
}

/** What was unpacked: a description and a disk, plain files, nothing else. */
async function checkUnpacked(dir: string): Promise<VolumeRecord> {
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
  try {
    return parseVolumeRecord(JSON.parse(await readFile(join(dir, DOCUMENT), "utf8")));
  } catch (error) {
    throw archiveError(messageOf(error), error);
  }
}

/** A volume that cannot be used. */
function damaged(name: string, why: string): VmsanError {
  return new VmsanError({
    code: "ERR_VOLUME_DAMAGED",
    message: `Cannot use the volume ${name}`,
    why,
    fix: "Repair its file system with e2fsck, or remove the volume.",
  });
}

/** Make a file's content survive a power cut. */
async function syncFile(path: string): Promise<void> {
  const handle = await open(path, "r");
  try {
    await handle.datasync();
  } finally {
    await handle.close();
  }
}
