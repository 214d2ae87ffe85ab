/** What the store's images need of its blobs, and the room that the others take: remove, prune, disk use. */
import { readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import type { Digest, Platform } from "../../model/image.ts";
import { errnoOf } from "../../model/errors.ts";
import { ASIDE } from "../../util/atomic.ts";
import { MANIFEST_LIMIT, parseDocument } from "../documents/documents.ts";
import { imageError } from "../errors.ts";
import { listHolders } from "./leases.ts";
import type { Holder } from "./leases.ts";
import { isDigest } from "../reference.ts";
import { findImage } from "./manage.ts";
import { nameOf, readStoreIndex, writeStoreIndex } from "./names.ts";
import type { ContentStore } from "./store.ts";

/** Bytes on the disk, each blob counted once. */
export interface DiskUse {
  blobs: number;
  /** Allocated bytes of all blobs. */
  bytes: number;
  /** Of these, the bytes that no name needs: what {@link pruneStore} can free. */
  unusedBytes: number;
  /** Allocated bytes of downloads that have not ended. */
  partialBytes: number;
}

/** Every digest that a document needs, itself included; documents that are lost need no more. */
export async function reach(store: ContentStore, digest: Digest, into: Set<Digest>): Promise<void> {
  if (into.has(digest)) return;
  into.add(digest);
  const size = await store.blobSize(digest);
  if (size === undefined || size > MANIFEST_LIMIT) return;
  let document: ReturnType<typeof parseDocument>;
  try {
    document = parseDocument(await store.readBlob(digest, MANIFEST_LIMIT), undefined, digest);
  } catch {
    // A layer or a configuration, or a damaged manifest: nothing follows from it.
    return;
  }
  if (document.kind === "index") {
    for (const entry of document.index.manifests) await reach(store, entry.digest, into);
    return;
  }
  into.add(document.manifest.config.digest);
  for (const layer of document.manifest.layers) into.add(layer.digest);
}

/** What names and holders need. The caller holds the store's lock. */
async function neededBlobs(store: ContentStore, holders: readonly Holder[]): Promise<Set<Digest>> {
  const needed = new Set<Digest>();
  for (const entry of (await readStoreIndex(store)).manifests) {
    await reach(store, entry.digest, needed);
  }
  for (const { held } of holders) {
    // A held digest may be a manifest: what it names is held as well.
    for (const digest of held) await reach(store, digest, needed);
  }
  return needed;
}

/** Digests of the files in a directory of the store. */
export async function digestsIn(store: ContentStore, name: string): Promise<Digest[]> {
  const files = await readdir(join(store.dir, name));
  return files.map((file) => `sha256:${file}` as const).filter(isDigest);
}

/** Bytes that a file takes on the disk; 0 when it has gone meanwhile. */
async function allocated(path: string): Promise<number> {
  try {
    return (await stat(path)).blocks * 512;
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return 0;
    throw error;
  }
}

/** Remove blobs that nothing needs. The caller holds the store's lock. */
async function sweep(
  store: ContentStore,
  holders: readonly Holder[],
  only?: ReadonlySet<Digest>,
): Promise<{ blobs: number; bytes: number }> {
  const needed = await neededBlobs(store, holders);
  const removed = { blobs: 0, bytes: 0 };
  for (const digest of await digestsIn(store, "blobs/sha256")) {
    if (needed.has(digest) || (only !== undefined && !only.has(digest))) continue;
    removed.bytes += await allocated(store.blobPath(digest));
    removed.blobs += 1;
    await store.discard(digest);
  }
  return removed;
}

/** What was removed. */
export interface Removed {
  /** Names removed. */
  names: string[];
  blobs: number;
  /** Bytes freed on the disk. */
  bytes: number;
}

/** What {@link removeImage} may be told. */
export interface RemoveOptions {
  platform?: Platform;
  /** An image that is in use loses its last name all the same, and stays until nobody uses it. */
  keepHeld?: boolean;
}

/**
 * Remove a name, and the blobs that nothing else needs.
 * Throws ERR_IMAGE_IN_USE when it is the last name of an image that a VM or a running
 * process uses, ERR_IMAGE_NOT_FOUND.
 */
export async function removeImage(
  store: ContentStore,
  text: string,
  { platform, keepHeld = false }: RemoveOptions = {},
): Promise<Removed> {
  const { name, descriptor } = await findImage(store, text, platform);
  const guard = await store.lock();
  try {
    const holders = await listHolders(store);
    const index = await readStoreIndex(store);
    const rest = index.manifests.filter(
      (entry) => nameOf(entry) !== name || entry.digest !== descriptor.digest,
    );
    const user = holders.find(({ held }) => held.has(descriptor.digest));
    const last = !rest.some((entry) => entry.digest === descriptor.digest);
    if (user !== undefined && last && !keepHeld) {
      throw imageError(
        "ERR_IMAGE_IN_USE",
        `Cannot remove the image ${name}`,
        `It is used by ${user.name}.`,
        "Remove the VM, or wait until that has ended.",
      );
    }
    const own = new Set<Digest>();
    await reach(store, descriptor.digest, own);
    await writeStoreIndex(store, rest);
    return { names: [name], ...(await sweep(store, holders, own)) };
  } finally {
    guard.release();
  }
}

/** What {@link pruneStore} may be told. */
export interface PruneOptions {
  /** Also remove the names of images that no VM and no process uses. */
  all?: boolean;
}

/**
 * Remove blobs without a name, unfinished downloads that nobody continues, and what dead
 * processes left. Nothing that a pull, a build or a VM uses is removed.
 */
export async function pruneStore(
  store: ContentStore,
  options: PruneOptions = {},
): Promise<Removed> {
  const guard = await store.lock();
  try {
    const holders = await listHolders(store);
    const held = new Set(holders.flatMap((holder) => [...holder.held]));
    const names: string[] = [];
    if (options.all === true) {
      const { manifests } = await readStoreIndex(store);
      const kept = manifests.filter((entry) => held.has(entry.digest));
      names.push(
        ...manifests.filter((entry) => !kept.includes(entry)).map((entry) => nameOf(entry) ?? ""),
      );
      if (kept.length < manifests.length) await writeStoreIndex(store, kept);
    }
    const removed = await sweep(store, holders);
    for (const digest of await digestsIn(store, "partial")) {
      if (held.has(digest)) continue;
      removed.bytes += await allocated(store.partialPath(digest));
      await rm(store.partialPath(digest), { force: true });
    }
    await removeStrays(store);
    return { names, ...removed };
  } finally {
    guard.release();
  }
}

/** Temporary files of killed writers, and stamps of blobs that are gone. */
async function removeStrays(store: ContentStore): Promise<void> {
  // Only the index is written at the top, and only under the lock that is held here.
  for (const name of await readdir(store.dir)) {
    if (name.startsWith(ASIDE)) await rm(join(store.dir, name), { force: true });
  }
  const present = new Set<string>(await digestsIn(store, "blobs/sha256"));
  for (const digest of await digestsIn(store, "verified")) {
    if (!present.has(digest)) await rm(join(store.dir, "verified", digest.slice(7)));
  }
}

/** Bytes that the store takes, each blob counted once. */
export async function diskUse(store: ContentStore): Promise<DiskUse> {
  const guard = await store.lock();
  try {
    const needed = await neededBlobs(store, []);
    const use: DiskUse = { blobs: 0, bytes: 0, unusedBytes: 0, partialBytes: 0 };
    for (const digest of await digestsIn(store, "blobs/sha256")) {
      const bytes = await allocated(store.blobPath(digest));
      use.blobs += 1;
      use.bytes += bytes;
      if (!needed.has(digest)) use.unusedBytes += bytes;
    }
    for (const digest of await digestsIn(store, "partial")) {
      use.partialBytes += await allocated(store.partialPath(digest));
    }
    return use;
  } finally {
    guard.release();
  }
}
