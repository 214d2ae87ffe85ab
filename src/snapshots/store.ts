/** Snapshots on disk: one directory each, complete or absent. */
import { existsSync } from "node:fs";
import { mkdir, readFile, readdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { randomBytes } from "node:crypto";
import { VmsanError, errnoOf, messageOf } from "../model/errors.ts";
import type { SnapshotRecord, SnapshotSizes } from "../model/snapshot.ts";
import type { StoredFile } from "../model/vm.ts";
import { syncDirectory, syncFile, writeFileAtomic } from "../util/atomic.ts";
import { SharedMutex } from "../util/flow/shared-mutex.ts";
import type { SnapshotFiles } from "../vmm/driver.ts";
import { describeFile, share, whatIsDamaged } from "./files.ts";

const DOCUMENT = "snapshot.json";
/** Directory of memory that was a stream at first and has been made shareable. */
const SHARED = "shared";
/** What is not a snapshot yet, or not any more; named after it. */
const DRAFT = /^\.new-(snap-[0-9a-f]{8})$/;
const ID = /^snap-[0-9a-f]{8}$/;

/** Names of the parts of a memory image in a directory. */
export const memoryFiles = {
  state: "state",
  memory: "memory",
  token: "token",
  shares: "shares",
} as const;

/** A memory image: what a driver loads, and the token that the guest in it answers to. */
export interface MemoryImage {
  files: SnapshotFiles;
  token: string;
  /** What the file server of its shared directories knew then. */
  shares?: string;
}

/** The memory image in a directory. */
export async function readMemoryImage(dir: string): Promise<MemoryImage> {
  const shares = join(dir, memoryFiles.shares);
  return {
    files: memoryPaths(dir),
    token: (await readFile(join(dir, memoryFiles.token), "utf8")).trim(),
    ...(existsSync(shares) && { shares }),
  };
}

/** Where a memory image's files are in a directory. */
export function memoryPaths(dir: string): SnapshotFiles {
  return { state: join(dir, memoryFiles.state), memory: join(dir, memoryFiles.memory) };
}

/** Keep what a file server knows with a memory image. @param from its file, which it replaces and never changes */
export async function keepShares(from: string, dir: string): Promise<void> {
  await share(from, join(dir, memoryFiles.shares));
}

/** Keep the token with a memory image; only its owner may read it. */
export async function writeToken(dir: string, token: string): Promise<void> {
  await writeFile(join(dir, memoryFiles.token), `${token}\n`, { mode: 0o600, flush: true });
}

/** No snapshot has that ID or name. */
function snapshotNotFound(ref: string): VmsanError {
  return new VmsanError({
    code: "ERR_VM_SNAPSHOT_NOT_FOUND",
    message: `No snapshot ${ref}`,
    why: "No snapshot has that ID or name.",
    fix: "Run `vmsan snapshot ls` to see all.",
  });
}

/** A snapshot cannot be used. */
function damaged(ref: string, why: string): VmsanError {
  return new VmsanError({
    code: "ERR_SNAPSHOT_DAMAGED",
    message: `Cannot use the snapshot ${ref}`,
    why,
    fix: `If its disk is whole, \`vmsan create --snapshot ${ref} --cold\` boots a VM from that; else remove it: vmsan snapshot rm ${ref}`,
  });
}

/** What reads a stored document; given by whoever validates outside data. */
export type ParseRecord = (value: unknown) => SnapshotRecord;

/** The directory of snapshots. Used by one process at a time (the daemon). */
export class SnapshotStore {
  private readonly root: string;
  private readonly parse: ParseRecord;
  private readonly records = new Map<string, SnapshotRecord>();
  private readonly locks = new Map<string, SharedMutex>();

  /** @param root absolute path of the directory of snapshots */
  constructor(root: string, parse: ParseRecord) {
    this.root = root;
    this.parse = parse;
  }

  /**
   * Read what is there, and remove what a killed daemon had not finished.
   * @param forget what else was made for a snapshot that is none
   * @returns directories that cannot be read, and why
   */
  async load(forget: (id: string) => Promise<void>): Promise<{ id: string; why: string }[]> {
    const broken: { id: string; why: string }[] = [];
    for (const name of await this.names()) {
      const unfinished = DRAFT.exec(name)?.[1];
      if (unfinished !== undefined) {
        await forget(unfinished);
        await this.discard(join(this.root, name));
      }
      if (!ID.test(name)) continue;
      try {
        const text = await readFile(join(this.root, name, DOCUMENT), "utf8");
        const record = this.parse(JSON.parse(text));
        await this.tidy(record);
        this.records.set(name, record);
      } catch (error) {
        broken.push({ id: name, why: messageOf(error) });
      }
    }
    return broken;
  }

  /** Remove what a daemon that was killed while it made memory shareable has left. */
  private async tidy({ id, files }: SnapshotRecord): Promise<void> {
    const needed = new Set([DOCUMENT, ...files.map(({ name }) => name.split("/")[0])]);
    for (const name of await readdir(this.dir(id))) {
      if (!needed.has(name)) await rm(join(this.dir(id), name), { recursive: true, force: true });
    }
  }

  private async names(): Promise<string[]> {
    try {
      return await readdir(this.root);
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return [];
      throw error;
    }
  }

  /** All snapshots, oldest first. */
  list(): SnapshotRecord[] {
    return [...this.records.values()].toSorted((a, b) => a.createdAt.localeCompare(b.createdAt));
  }

  /** A snapshot by its ID or name. @throws ERR_VM_SNAPSHOT_NOT_FOUND */
  get(ref: string): SnapshotRecord {
    const found =
      this.records.get(ref) ?? [...this.records.values()].find((record) => record.name === ref);
    if (found === undefined) throw snapshotNotFound(ref);
    return found;
  }

  /** The directory of a snapshot. */
  dir(id: string): string {
    if (!ID.test(id)) throw new Error(`not a snapshot ID: ${id}`);
    return join(this.root, id);
  }

  /** Held by whoever needs a snapshot's files to stay, alone by whoever replaces or removes them. */
  lockOf(id: string): SharedMutex {
    const lock = this.locks.get(id) ?? new SharedMutex();
    this.locks.set(id, lock);
    return lock;
  }

  /**
   * A new identifier, and an empty directory for what may become that snapshot; it goes with
   * {@link discard} or by itself.
   */
  async begin(): Promise<{ id: string; draft: string }> {
    await mkdir(this.root, { recursive: true, mode: 0o700 });
    for (;;) {
      const id = `snap-${randomBytes(4).toString("hex")}`;
      if (this.records.has(id)) continue;
      const draft = this.asideOf(id);
      try {
        await mkdir(draft, { mode: 0o700 });
        return { id, draft };
      } catch (error) {
        if (errnoOf(error) !== "EEXIST") throw error;
      }
    }
  }

  private asideOf(id: string): string {
    return join(this.root, `.new-${id}`);
  }

  /** Remove what did not become a snapshot. */
  async discard(draft: string): Promise<void> {
    await rm(draft, { recursive: true, force: true });
  }

  /** Make a draft a snapshot: durable, described, and in its place at one stroke. */
  async commit(draft: string, record: Omit<SnapshotRecord, "files">): Promise<SnapshotRecord> {
    const files: StoredFile[] = [];
    for (const name of (await readdir(draft)).toSorted()) {
      await syncFile(join(draft, name));
      files.push(await describeFile(draft, name));
    }
    const whole: SnapshotRecord = { ...record, files };
    await writeFileAtomic(join(draft, DOCUMENT), `${JSON.stringify(whole, null, 2)}\n`);
    await rename(draft, this.dir(record.id));
    await syncDirectory(this.root);
    this.records.set(record.id, whole);
    return whole;
  }

  /**
   * Remove a snapshot, with its lock held alone. VMs that were made from it are not affected: what they share stays.
   * @param forget what else was made for it
   */
  async remove(id: string, forget: (id: string) => Promise<void>): Promise<void> {
    // Out of sight at one stroke; the rest may be interrupted.
    const aside = this.asideOf(id);
    await rename(this.dir(id), aside);
    this.records.delete(id);
    this.locks.delete(id);
    await forget(id);
    await this.discard(aside);
  }

  /** Check a snapshot's files by size, the small ones by checksum. @throws ERR_SNAPSHOT_DAMAGED */
  async verify(record: SnapshotRecord): Promise<void> {
    await this.verifyIn(record, this.dir(record.id));
  }

  /** The same for files in another directory. */
  async verifyIn(record: SnapshotRecord, dir: string): Promise<void> {
    const why = await whatIsDamaged(dir, record.files);
    if (why !== undefined) throw damaged(record.id, why);
  }

  /** Whether a snapshot's memory is in a file that VMs can map: not that of one that is gone. */
  isShareable(id: string): boolean {
    const files = this.records.get(id)?.files ?? [];
    return files.some(
      ({ name, sizeBytes }) => sizeBytes > 0 && name.split("/").at(-1) === memoryFiles.memory,
    );
  }

  /** Files of a snapshot's memory, and the token that the guest in it answers to. */
  async memoryOf(record: SnapshotRecord): Promise<MemoryImage> {
    const dir = this.dir(record.id);
    const apart = record.files.some(({ name }) => name === `${SHARED}/${memoryFiles.state}`);
    const image = await readMemoryImage(dir);
    return apart ? { ...image, files: memoryPaths(join(dir, SHARED)) } : image;
  }

  /**
   * Keep memory that has been written once more, now so that VMs can share it, instead of the
   * stream that it was; with the snapshot's lock held alone.
   * @param draft directory with the new files
   */
  async replaceMemory(id: string, draft: string): Promise<SnapshotRecord> {
    const record = this.get(id);
    const dir = this.dir(id);
    const old: string[] = [memoryFiles.state, memoryFiles.memory];
    const files = record.files.filter(({ name }) => !old.includes(name));
    for (const name of old) {
      await syncFile(join(draft, name));
      files.push({ ...(await describeFile(draft, name)), name: `${SHARED}/${name}` });
    }
    await rm(join(dir, SHARED), { recursive: true, force: true });
    await rename(draft, join(dir, SHARED));
    const whole = { ...record, files };
    await writeFileAtomic(join(dir, DOCUMENT), `${JSON.stringify(whole, null, 2)}\n`);
    this.records.set(id, whole);
    for (const name of old) await rm(join(dir, name), { force: true });
    return whole;
  }

  /** What a snapshot takes on disk. */
  async sizes(record: SnapshotRecord): Promise<SnapshotSizes> {
    const sizes: SnapshotSizes = { apparent: 0, stored: 0, shared: 0 };
    for (const file of record.files) {
      const found = await stat(join(this.dir(record.id), file.name)).catch(() => undefined);
      // A file that is missing takes nothing; `verify` tells.
      if (found === undefined) continue;
      sizes.apparent += found.size;
      sizes.stored += found.blocks * 512;
      if (found.nlink > 1) sizes.shared += found.blocks * 512;
    }
    return sizes;
  }
}
