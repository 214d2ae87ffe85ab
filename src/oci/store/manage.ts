/** The store's images as users see them: list, inspect, tag, remove, prune, disk use, check. */
import { readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import type { Digest, Image, ImageConfig, Platform } from "../../model/image.ts";
import { errnoOf } from "../../model/errors.ts";
import { ASIDE } from "../../util/atomic.ts";
import type { FoundManifest } from "../documents/choose.ts";
import { parseConfig } from "../documents/config.ts";
import { CONFIG_LIMIT, MANIFEST_LIMIT, parseDocument } from "../documents/documents.ts";
import { assembleImage, blobsOf, findManifest } from "./assemble.ts";
import { imageError } from "../errors.ts";
import { listHolders } from "./leases.ts";
import type { Holder } from "./leases.ts";
import {
  findDigest,
  findName,
  listNames,
  nameOf,
  readStoreIndex,
  setName,
  writeStoreIndex,
} from "./names.ts";
import type { NamedManifest } from "./names.ts";
import { hostPlatform } from "../documents/platform.ts";
import { formatReference, isDigest, parseReference } from "../reference.ts";
import { digestFile } from "./store.ts";
import type { ContentStore } from "./store.ts";

/** An image of the store, for `image ls`. */
export interface ImageSummary {
  name: string;
  digest: Digest;
  platform: Platform | undefined;
  /** When it came, ISO 8601; empty when another tool put it there. */
  stored: string;
  /** Bytes of its blobs as stored; those shared with other images count in each. */
  sizeBytes: number;
  /** Whether all of its blobs are there. */
  complete: boolean;
}

/** What `image inspect` shows. */
export interface ImageDetails extends ImageSummary {
  /** Digest that the registry serves under the name: the manifest's or an index's. */
  sourceDigest: Digest;
  configDigest: Digest;
  created: string | undefined;
  /** Who made it, if that is told. */
  author: string | undefined;
  /** What is told of its last step. */
  comment: string | undefined;
  config: ImageConfig;
  layers: { digest: Digest; diffId: Digest; mediaType: string; size: number }[];
}

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

/** The manifest behind a store entry. */
export async function manifestOf(
  store: ContentStore,
  entry: NamedManifest,
): Promise<FoundManifest> {
  const platform = entry.descriptor.platform ?? hostPlatform();
  return findManifest(entry.descriptor, platform, (digest) => store.blobPath(digest), entry.name);
}

/** One line of `image ls`. */
async function summarize(store: ContentStore, entry: NamedManifest): Promise<ImageSummary> {
  const { descriptor, name, stored } = entry;
  let sizeBytes = descriptor.size;
  let complete = true;
  try {
    const found = await manifestOf(store, entry);
    for (const digest of new Set(blobsOf(found))) {
      const size = await store.blobSize(digest);
      complete &&= size !== undefined;
      if (digest !== descriptor.digest) sizeBytes += size ?? 0;
    }
  } catch {
    // A lost or damaged manifest: the list says so instead of failing as a whole.
    complete = false;
  }
  return {
    name,
    digest: descriptor.digest,
    platform: descriptor.platform,
    stored,
    sizeBytes,
    complete,
  };
}

/** All named images, by name. */
export async function listImages(store: ContentStore): Promise<ImageSummary[]> {
  const names = await listNames(store);
  names.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
  const summaries: ImageSummary[] = [];
  for (const entry of names) summaries.push(await summarize(store, entry));
  return summaries;
}

/**
 * Find an image by what the user calls it: its name, short or spelt out, its digest, or at
 * least 12 digits of that. Throws ERR_IMAGE_NOT_FOUND.
 */
export async function findImage(
  store: ContentStore,
  text: string,
  platform: Platform = hostPlatform(),
): Promise<NamedManifest> {
  const exact = await findName(store, text, platform);
  if (exact !== undefined) return exact;
  if (isDigest(text)) {
    const found = await findDigest(store, text, platform);
    if (found !== undefined) return found;
  }
  const hex = text.replace(/^sha256:/, "");
  if (/^[0-9a-f]{12,64}$/.test(hex)) {
    const all = await listNames(store);
    const matches = all.filter((entry) => entry.descriptor.digest.startsWith(`sha256:${hex}`));
    const [found] = matches;
    if (found !== undefined) return found;
  }
  // Throws ERR_VALIDATION_IMAGE_REF for what can be no name of an image at all.
  const reference = /^(oci-archive|docker-archive|rootfs|docker-daemon):/.test(text)
    ? undefined
    : parseReference(text);
  const found =
    reference === undefined
      ? undefined
      : ((await findName(store, formatReference(reference), platform)) ??
        (reference.digest === undefined
          ? undefined
          : await findDigest(store, reference.digest, platform)));
  if (found !== undefined) return found;
  throw imageError(
    "ERR_IMAGE_NOT_FOUND",
    `Cannot find the image ${text}`,
    "The image store has none of that name.",
    "See `vmsan image ls`, or pull it with `vmsan image pull`.",
  );
}

/** Everything about one image. */
export async function inspectImage(
  store: ContentStore,
  text: string,
  platform?: Platform,
): Promise<ImageDetails> {
  const entry = await findImage(store, text, platform);
  const found = await manifestOf(store, entry);
  const pathOf = (digest: Digest): string => store.blobPath(digest);
  const image: Image = await assembleImage(found, pathOf, entry.name, store);
  const bytes = await store.readBlob(image.configDigest, CONFIG_LIMIT);
  const document = parseConfig(bytes, image.layers.length, entry.name);
  return {
    ...(await summarize(store, entry)),
    platform: image.platform,
    sourceDigest: entry.sourceDigest,
    configDigest: image.configDigest,
    created: document.created,
    author: document.author,
    comment: document.history?.at(-1)?.comment,
    config: image.config,
    layers: found.manifest.layers.map(({ digest, mediaType, size }, index) => ({
      digest,
      diffId: image.layers[index]?.diffId ?? digest,
      mediaType,
      size,
    })),
  };
}

/** Give an image of the store a further name. @returns the name, spelt out */
export async function tagImage(
  store: ContentStore,
  text: string,
  newName: string,
  platform?: Platform,
): Promise<string> {
  const reference = parseReference(newName);
  if (reference.digest !== undefined) {
    throw imageError(
      "ERR_VALIDATION_IMAGE_REF",
      `Cannot tag an image as ${newName}`,
      "A name with a digest cannot be given.",
      "Use a name with a tag.",
    );
  }
  const name = formatReference(reference);
  const { descriptor } = await findImage(store, text, platform);
  await setName(store, {
    name,
    digest: descriptor.digest,
    size: descriptor.size,
    mediaType: descriptor.mediaType,
    platform: descriptor.platform ?? { os: "", architecture: "" },
  });
  return name;
}

/** Every digest that a document needs, itself included; documents that are lost need no more. */
async function reach(store: ContentStore, digest: Digest, into: Set<Digest>): Promise<void> {
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
async function digestsIn(store: ContentStore, name: string): Promise<Digest[]> {
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

/** A blob that is not what it should be. */
export interface StoreProblem {
  digest: Digest;
  problem: "missing" | "corrupt";
  /** A name that needs it; none for a corrupt blob that nothing needs. */
  neededBy: string | undefined;
}

/** Read every blob again, and look that named images have all of theirs. */
export async function verifyStore(
  store: ContentStore,
  signal?: AbortSignal,
): Promise<StoreProblem[]> {
  const problems: StoreProblem[] = [];
  const users = new Map<Digest, string>();
  for (const { descriptor, name } of await listNames(store)) {
    const needed = new Set<Digest>();
    await reach(store, descriptor.digest, needed);
    for (const digest of needed) {
      if (!users.has(digest)) users.set(digest, name);
    }
  }
  const present = new Set(await digestsIn(store, "blobs/sha256"));
  for (const digest of present) {
    const found = await digestFile(store.blobPath(digest), signal);
    if (found.digest !== digest) {
      problems.push({ digest, problem: "corrupt", neededBy: users.get(digest) });
    }
  }
  for (const [digest, neededBy] of users) {
    if (!present.has(digest)) problems.push({ digest, problem: "missing", neededBy });
  }
  return problems;
}
