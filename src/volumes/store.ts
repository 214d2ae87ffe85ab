/**
 * volumes/: file systems with a name. Takes names and sizes, gives disks for VMs, or directories to be served to them; knows no
 * VM: who may use which one is the composer's affair.
 *
 * store.ts: a directory a volume, complete or absent, with one document and its disk, or (a shared one) its tree of files.
 */
import { randomBytes } from "node:crypto";
import { mkdir, readFile, readdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { createEmptyDisk } from "../ext4/empty.ts";
import { growDisk } from "../ext4/grow.ts";
import { readState, writeLabel } from "../ext4/reading/label.ts";
import { VmsanError, errnoOf, messageOf } from "../model/errors.ts";
import { VOLUME_BYTES } from "../model/volume.ts";
import type { VolumeRecord, VolumeRequest } from "../model/volume.ts";
import { parseVolumeRecord } from "../schema/state.ts";
import {
  ASIDE,
  syncDirectory,
  syncFile,
  temporarySibling,
  writeFileAtomic,
} from "../util/atomic.ts";
import { removeTree } from "../util/files/remove-tree.ts";
import { Mutex } from "../util/flow/mutex.ts";
import { parseVolumeName } from "../util/mounts.ts";
import { packSparse, unpackSparse } from "../util/packing/sparse-tar.ts";
import { DISK, DOCUMENT, beginning, checkUnpacked, parseDocument } from "./archive.ts";
import { Busy } from "./busy.ts";
import { diskTree } from "./disk-tree.ts";
import {
  archiveError,
  damaged,
  exists,
  isShared,
  isUnreadable,
  notFound,
  requireOwner,
  requireUnbounded,
} from "./errors.ts";
import {
  dataBytes,
  dataDirectory,
  exportData,
  fillData,
  importData,
  isFilePart,
  isSharedArchive,
  makeData,
  settle,
  sweepParts,
  takeData,
} from "./shared.ts";

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

/** The document as it is written. */
function textOf(record: VolumeRecord): string {
  return `${JSON.stringify(record, null, 2)}\n`;
}

/** The volumes of one VMSAN_DIR. */
export class VolumeStore {
  private readonly root: string;
  /** Volumes that something is done to. */
  private readonly busy = new Busy();
  /** Shared ones are filled one after the other: who comes second finds what the first has put there. */
  private readonly filling = new Mutex();

  /** @param root absolute path of their directory */
  constructor(root: string) {
    this.root = root;
  }

  private dir(name: string): string {
    return join(this.root, parseVolumeName(name));
  }

  /** Path of a volume's disk. */
  diskPath(name: string): string {
    return join(this.dir(name), DISK);
  }

  /** Remove what a killed process has left half-made. @returns what was removed */
  async sweep(): Promise<string[]> {
    const drafts = (await this.names()).filter((name) => name.startsWith(ASIDE));
    for (const name of drafts) await removeTree(join(this.root, name));
    for (const { name, shared = false, damaged } of await this.list()) {
      if (damaged !== undefined) continue;
      const left = await sweepParts(this.dir(name), shared, DISK);
      drafts.push(...left.map((part) => `${name}/${part}`));
    }
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
    const path = join(this.dir(name), DOCUMENT);
    try {
      return parseVolumeRecord(JSON.parse(await readFile(path, "utf8")));
    } catch (error) {
      if (errnoOf(error) === "ENOENT") throw notFound(name);
      throw damaged(name, messageOf(error));
    }
  }

  /** Bytes of a volume: as guests see it, and allocated; none when its disk is missing. */
  async sizes({
    name,
    shared,
    sizeBytes = VOLUME_BYTES,
  }: Pick<VolumeRecord, "name" | "shared" | "sizeBytes">): Promise<{
    sizeBytes: number;
    storedBytes: number;
  }> {
    if (shared) return { sizeBytes, storedBytes: await dataBytes(this.dir(name)) };
    try {
      const { size, blocks } = await stat(this.diskPath(name));
      return { sizeBytes: size, storedBytes: blocks * 512 };
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return { sizeBytes: 0, storedBytes: 0 };
      throw error;
    }
  }

  /** Make a volume. @throws ERR_VOLUME_NAME_TAKEN, ERR_VOLUME_SHARED */
  async create(request: VolumeRequest): Promise<VolumeRecord> {
    const { name, sizeBytes, labels, shared } = request;
    const fsLabel = shared ? "" : newLabel();
    const record: VolumeRecord = {
      schema: 1,
      name: parseVolumeName(name),
      createdAt: new Date().toISOString(),
      labels,
      fsLabel,
      ...(shared && { shared, sizeBytes: sizeBytes ?? VOLUME_BYTES }),
    };
    if (shared) {
      requireUnbounded(record);
      return await this.add(record, makeData);
    }
    return await this.add(record, async (dir) => {
      const directories = ["data"];
      const bytes = sizeBytes ?? VOLUME_BYTES;
      const options = { sizeBytes: bytes, journal: true, label: fsLabel, directories };
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
      if (record.shared !== true) await syncFile(join(draft, DISK));
      await writeFileAtomic(join(draft, DOCUMENT), textOf(record));
      // Never over another one: its directory is not empty.
      await rename(draft, place);
      await syncDirectory(this.root);
      return record;
    } catch (error) {
      await removeTree(draft);
      if (["ENOTEMPTY", "EEXIST"].includes(errnoOf(error) ?? "")) throw exists(record.name);
      throw error;
    }
  }

  /** Remove a volume, which nobody may use. @returns bytes that it took */
  async remove(name: string): Promise<number> {
    if (!(await this.has(name))) throw notFound(name);
    this.busy.refuse(name, `Cannot remove the volume ${name}`);
    const shared = await this.isShared(name);
    const { storedBytes } = await this.sizes({ name, ...(shared && { shared }) });
    const place = join(this.root, name);
    const gone = temporarySibling(place);
    await rename(place, gone);
    await removeTree(gone);
    return storedBytes;
  }

  /**
   * A volume's disk, ready to be attached: with the label that it had when it was made, whatever a
   * guest has made of that.
   * @param readonly whether it will only be read
   * @throws ERR_VOLUME_NOT_FOUND, ERR_VOLUME_DAMAGED, ERR_VOLUME_IN_USE
   */
  async disk(name: string, readonly: boolean): Promise<VolumeDisk> {
    const { fsLabel, shared } = await this.get(name);
    if (shared) {
      const fix = "Make a new VM with it: it is a shared volume for every new VM.";
      throw isShared(name, `Cannot attach the disk of the volume ${name}`, fix);
    }
    const reads = readonly && this.busy.is(name, "exported");
    if (!reads) this.busy.refuse(name, `Cannot mount the volume ${name}`);
    const path = this.diskPath(name);
    const state = await readState(path);
    const { sizeBytes } = await this.sizes({ name });
    if (state === undefined || state.sizeBytes > sizeBytes) {
      throw damaged(name, `${path} is no whole ext4 file system.`);
    }
    if (state.label !== fsLabel) await writeLabel(path, fsLabel);
    return { path, label: fsLabel, needsRecovery: state.needsRecovery };
  }

  /** Volumes only grow. @returns the volume and its size until now @throws ERR_VOLUME_NOT_FOUND, ERR_VOLUME_SIZE */
  async checkGrowth(
    name: string,
    sizeBytes: number,
  ): Promise<{ record: VolumeRecord; has: number }> {
    const record = await this.get(name);
    // What a shared one's files take up is not looked at.
    const has = record.shared
      ? (record.sizeBytes ?? VOLUME_BYTES)
      : (await this.sizes(record)).sizeBytes;
    if (sizeBytes < has) {
      throw new VmsanError({
        code: "ERR_VOLUME_SIZE",
        message: `Cannot make the volume ${name} ${sizeBytes} bytes large`,
        why: `It has ${has} bytes, and volumes only grow.`,
        fix: "Ask for more, or make a new volume and copy.",
      });
    }
    return { record, has };
  }

  /**
   * Make the disk of a volume that nobody uses larger, or a shared one for VMs that start from then on.
   * @throws ERR_VOLUME_SIZE, ERR_DISK_GROW
   */
  async grow(name: string, sizeBytes: number): Promise<void> {
    const { record, has } = await this.checkGrowth(name, sizeBytes);
    if (record.shared) {
      const path = join(this.dir(name), DOCUMENT);
      await writeFileAtomic(path, textOf({ ...record, sizeBytes }));
      return;
    }
    if (sizeBytes === has) return;
    const done = this.busy.begin(name, "grown", `Cannot grow the volume ${name}`);
    try {
      await growDisk(this.diskPath(name), sizeBytes);
    } finally {
      done();
    }
  }

  /** Whether a volume is a shared one; one that is not there, or whose document cannot be read, is none. */
  async isShared(name: string): Promise<boolean> {
    try {
      return (await this.get(name)).shared === true;
    } catch {
      // What is wrong with it says whoever uses it.
      return false;
    }
  }

  /**
   * The directory of a shared volume, whole.
   * @param readonly whether it will only be read
   * @throws ERR_VOLUME_NOT_FOUND, ERR_VOLUME_DAMAGED, ERR_VOLUME_IN_USE while it is read into an archive
   */
  async directory(name: string, readonly: boolean): Promise<string> {
    const { shared } = await this.get(name);
    if (shared !== true) throw damaged(name, "It is no shared volume any more.");
    if (!readonly) this.busy.refuse(name, `Cannot mount the volume ${name}`);
    await this.filling.run(async () => await settle(this.dir(name)));
    return dataDirectory(this.dir(name));
  }

  /** What a shared volume may take up, in bytes. @throws ERR_VOLUME_NOT_FOUND, ERR_VOLUME_DAMAGED */
  async limit(name: string): Promise<number> {
    const { sizeBytes = VOLUME_BYTES } = await this.get(name);
    return sizeBytes;
  }

  /** Whether a part of a shared volume is a file. @throws ERR_VOLUME_PART when it is neither file nor directory */
  async isFile(name: string, part: string): Promise<boolean> {
    const file = await isFilePart(this.dir(name), part);
    if (file !== undefined) return file;
    throw new VmsanError({
      code: "ERR_VOLUME_PART",
      message: `The volume ${name} has no ${part}`,
      why: "cannot access path: it is not there, or behind a link.",
      fix: "Make it in the volume first.",
    });
  }

  /**
   * Put into an empty shared volume what a directory of an image's disk holds; one that is not empty stays as it is.
   * @param disk path of the raw image; one that is no file system of ours leaves the volume empty
   * @param path absolute path of the directory in it, through no links
   */
  async fill(name: string, disk: string, path: string, signal: AbortSignal): Promise<void> {
    const dir = this.dir(name);
    await this.filling.run(async () => {
      try {
        await fillData(dir, () => diskTree(disk, path, dir, signal), signal);
      } catch (error) {
        if (!isUnreadable(error)) throw error;
      }
    });
  }

  /**
   * Make a volume that nobody uses a shared one, with all that is in it. Until its document says so it is what it was.
   * @throws ERR_VOLUME_NOT_FOUND, ERR_VOLUME_IN_USE, ERR_VOLUME_SHARED, ERR_VOLUME_OWNERS, ERR_VOLUME_DAMAGED, ERR_SETUP_MISSING_BINARY
   */
  async share(name: string, signal: AbortSignal): Promise<VolumeRecord> {
    const done = this.busy.begin(name, "made a shared one", `Cannot share the volume ${name}`);
    try {
      const before = await this.get(name);
      if (before.shared === true) return before;
      requireUnbounded(before);
      const dir = this.dir(name);
      try {
        const tree = diskTree(this.diskPath(name), "/data", dir, signal, (path, owner) =>
          requireOwner(name, path, owner),
        );
        await takeData(dir, tree, signal);
      } catch (error) {
        if (error instanceof RangeError) throw damaged(name, `${error.message}.`);
        if (isUnreadable(error)) throw damaged(name, error.why ?? error.message);
        throw error;
      }
      const { sizeBytes } = await this.sizes(before);
      const record: VolumeRecord = { ...before, fsLabel: "", shared: true, sizeBytes };
      await writeFileAtomic(join(dir, DOCUMENT), textOf(record));
      await rm(this.diskPath(name), { force: true });
      return record;
    } finally {
      done();
    }
  }

  /** A volume that nobody writes to as an archive; holes are kept. */
  async export(name: string): Promise<Readable> {
    const record = await this.get(name);
    if (record.shared) await this.directory(name, true);
    const done = this.busy.begin(name, "exported", `Cannot export the volume ${name}`);
    const archive = record.shared
      ? exportData(this.dir(name), textOf(record))
      : packSparse(this.dir(name), [DOCUMENT, DISK]);
    archive.once("close", done);
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
    const { head, whole } = await beginning(from);
    if (isSharedArchive(head)) {
      record.fsLabel = "";
      record.shared = true;
      return await this.add(record, async (dir) => {
        const about = parseDocument(await importData(whole, dir, signal, archiveError));
        record.labels = about.labels;
        record.sizeBytes = about.sizeBytes ?? VOLUME_BYTES;
        requireUnbounded(record);
      });
    }
    return await this.add(record, async (dir) => {
      await unpackSparse(whole, dir, signal, archiveError);
      record.labels = (await checkUnpacked(dir)).labels;
      await writeLabel(join(dir, DISK), record.fsLabel);
      await rm(join(dir, DOCUMENT));
    });
  }
}
