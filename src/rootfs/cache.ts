/**
 * The cache of base images: one directory per image, named after everything that decides its bytes.
 *
 * Entries are written aside, synced and renamed, under a lock that the kernel releases when its
 * holder dies: whoever finds a lock free that has an unfinished build beside it, removes that.
 */
import { chmod, mkdir, open, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import type {
  BuilderName,
  ComingLayers,
  DiskBuilder,
  DiskOptions,
  DiskSummary,
} from "../model/disk.ts";
import { errnoOf } from "../model/errors.ts";
import type { LayerBlob } from "../model/image.ts";
import { syncDirectory, writeFileAtomic } from "../util/atomic.ts";
import { lock, tryLock } from "../util/lock.ts";
import { directBuilder } from "./direct.ts";
import { imageKey } from "./identity.ts";
import { mke2fsBuilder } from "./mke2fs.ts";

const DISK = "disk.ext4";
const SUMMARY = "summary.json";
const ENTRY = /^[0-9a-f]{64}$/;
const BUILDING = /^building-([0-9a-f]{64})$/;
/** Longest wait for another process that builds the same image, in milliseconds. */
const LOCK_MS = 3_600_000;

/** All builders by name. */
export const builders: Readonly<Record<BuilderName, DiskBuilder>> = {
  direct: directBuilder,
  mke2fs: mke2fsBuilder,
};

/** What {@link ensureRootfs} takes besides the layers. */
export interface RootfsOptions {
  /** Directory of the cache; made if missing. */
  cacheDir: string;
  /** Bytes of the file system, a multiple of 4096. */
  sizeBytes: number;
  /** For a disk that will be cloned and written; default false. */
  journal?: boolean;
  /** Default `direct`. */
  builder?: BuilderName;
  signal?: AbortSignal;
  /** Compressed bytes read, and how many there are. */
  progress?: (done: number, total: number) => void;
  /** Where the layers are not all there yet. */
  coming?: ComingLayers;
}

/** A base image that is there. */
export interface Rootfs {
  /** Read-only image file. */
  path: string;
  key: string;
  summary: DiskSummary;
  /** It was there before. */
  cached: boolean;
}

/** One image of the cache. */
export interface RootfsEntry {
  key: string;
  path: string;
  summary: DiskSummary;
  /** Milliseconds since 1970. */
  createdAt: number;
}

/** Read an entry; undefined when there is none. */
async function readEntry(cacheDir: string, key: string): Promise<RootfsEntry | undefined> {
  const path = join(cacheDir, key, DISK);
  try {
    const summary = checkSummary(await readFile(join(cacheDir, key, SUMMARY), "utf8"));
    const { size, mtimeMs } = await stat(path);
    // A file of another size is no image of ours: build it again.
    if (summary === undefined || size !== summary.sizeBytes) return undefined;
    return { key, path, summary, createdAt: mtimeMs };
  } catch (error) {
    if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ENOTDIR") return undefined;
    throw error;
  }
}

/** Parse a stored summary; undefined when it is not one. */
function checkSummary(text: string): DiskSummary | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // Not JSON, so not ours; the entry counts as missing and is built again.
    return undefined;
  }
  if (typeof value !== "object" || value === null) return undefined;
  const numbers = ["sizeBytes", "allocatedBytes", "entries", "dataBytes", "holeBytes"];
  if (!numbers.every((name) => Number.isSafeInteger(Reflect.get(value, name)))) return undefined;
  if (!Array.isArray(Reflect.get(value, "warnings"))) return undefined;
  return value as DiskSummary;
}

const lockPath = (cacheDir: string, key: string): string => join(cacheDir, "locks", `${key}.lock`);
const buildingPath = (cacheDir: string, key: string): string => join(cacheDir, `building-${key}`);

/** Names in the cache's directory; none when it does not exist. */
async function names(cacheDir: string): Promise<string[]> {
  try {
    return (await readdir(cacheDir)).sort();
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return [];
    throw error;
  }
}

/** Remove what builds left behind whose process is gone. @returns their keys */
export async function sweepRootfs(cacheDir: string): Promise<string[]> {
  const swept: string[] = [];
  for (const name of await names(cacheDir)) {
    const key = BUILDING.exec(name)?.[1];
    if (key === undefined) continue;
    const held = tryLock(lockPath(cacheDir, key));
    if (held === undefined) continue;
    try {
      await rm(join(cacheDir, name), { recursive: true, force: true });
      swept.push(key);
    } finally {
      held.release();
    }
  }
  return swept;
}

/** Build aside, make it durable, put it in its place. */
async function buildEntry(
  layers: LayerBlob[],
  key: string,
  builder: DiskBuilder,
  disk: DiskOptions,
  options: RootfsOptions,
): Promise<void> {
  const aside = buildingPath(options.cacheDir, key);
  const place = join(options.cacheDir, key);
  await rm(aside, { recursive: true, force: true });
  await mkdir(aside, { recursive: true });
  try {
    const output = join(aside, DISK);
    const summary = await builder.build(layers, output, disk, {
      signal: options.signal ?? new AbortController().signal,
      ...(options.progress === undefined ? {} : { progress: options.progress }),
      ...(options.coming === undefined ? {} : { coming: options.coming }),
    });
    const started = performance.now();
    const handle = await open(output, "r+");
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
    await chmod(output, 0o444);
    summary.seconds.sync = (performance.now() - started) / 1000;
    await writeFileAtomic(join(aside, SUMMARY), JSON.stringify(summary), 0o644);
    // Something that does not count as an entry may be in the way.
    await rm(place, { recursive: true, force: true });
    await rename(aside, place);
    await syncDirectory(options.cacheDir);
  } catch (error) {
    await rm(aside, { recursive: true, force: true });
    throw error;
  }
}

/**
 * The base image of these layers (bottom to top), built unless it is there. Processes that want the
 * same image at the same time build it once. Throws what the builder throws, ERR_TIMEOUT_LOCK, or
 * the signal's reason.
 */
export async function ensureRootfs(layers: LayerBlob[], options: RootfsOptions): Promise<Rootfs> {
  const { cacheDir, sizeBytes, signal } = options;
  const builder = builders[options.builder ?? "direct"];
  const disk: DiskOptions = { sizeBytes, journal: options.journal ?? false };
  const key = imageKey(layers, disk, builder.name, builder.version);
  const present = await readEntry(cacheDir, key);
  if (present !== undefined) {
    return { path: present.path, key, summary: present.summary, cached: true };
  }
  await mkdir(cacheDir, { recursive: true });
  await sweepRootfs(cacheDir);
  const held = await lock(lockPath(cacheDir, key), {
    timeoutMs: LOCK_MS,
    ...(signal === undefined ? {} : { signal }),
  });
  try {
    let entry = await readEntry(cacheDir, key);
    const cached = entry !== undefined;
    if (entry === undefined) {
      await buildEntry(layers, key, builder, disk, options);
      entry = await readEntry(cacheDir, key);
    }
    if (entry === undefined) throw new Error(`the image ${key} vanished from ${cacheDir}`);
    return { path: entry.path, key, summary: entry.summary, cached };
  } finally {
    held.release();
  }
}

/** All images of the cache. */
export async function listRootfs(cacheDir: string): Promise<RootfsEntry[]> {
  const entries: RootfsEntry[] = [];
  for (const name of await names(cacheDir)) {
    const entry = ENTRY.test(name) ? await readEntry(cacheDir, name) : undefined;
    if (entry !== undefined) entries.push(entry);
  }
  return entries;
}

/**
 * Remove all images but those with these keys, and what dead builds left.
 * @returns keys and bytes removed
 */
export async function pruneRootfs(
  cacheDir: string,
  keepKeys: Iterable<string>,
): Promise<{ removed: string[]; freedBytes: number }> {
  const keep = new Set(keepKeys);
  const removed: string[] = [];
  let freedBytes = 0;
  await sweepRootfs(cacheDir);
  for (const name of await names(cacheDir)) {
    if (!ENTRY.test(name) || keep.has(name)) continue;
    const held = tryLock(lockPath(cacheDir, name));
    // Someone is just building or taking it.
    if (held === undefined) continue;
    try {
      const entry = await readEntry(cacheDir, name);
      await rm(join(cacheDir, name), { recursive: true, force: true });
      removed.push(name);
      freedBytes += entry?.summary.allocatedBytes ?? 0;
    } finally {
      held.release();
    }
  }
  return { removed, freedBytes };
}
