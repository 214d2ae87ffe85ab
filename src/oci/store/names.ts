/** The store's names: entries of index.json, each one platform's manifest. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Digest, Platform } from "../../model/image.ts";
import { errnoOf, messageOf } from "../../model/errors.ts";
import { writeFileAtomic } from "../../util/atomic.ts";
import { indexSchema } from "../../schema/oci.ts";
import type { Index, IndexEntry } from "../../schema/oci.ts";
import { MEDIA } from "../documents/media.ts";
import { imageError, storeError } from "../errors.ts";
import { platformScore } from "../documents/platform.ts";
import type { ContentStore } from "./store.ts";

/** Annotation with an image's name, as other OCI tools use it. */
export const NAME = "org.opencontainers.image.ref.name";
/** Annotation with the digest that the registry serves under the name (an index's, perhaps). */
const SOURCE = "dev.vmsan.source.digest";
/** Annotation with the time the image came, ISO 8601. */
const STORED = "dev.vmsan.stored";

/** A named image of the store. */
export interface NamedManifest {
  name: string;
  descriptor: IndexEntry;
  /** What the registry serves under the name: this manifest or an index with it. */
  sourceDigest: Digest;
  /** ISO 8601; empty when another tool put it there. */
  stored: string;
}

/** Read a layout's index.json. @param missing what to give when there is none */
export async function readIndex(dir: string, missing?: Index): Promise<Index> {
  const path = join(dir, "index.json");
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if (errnoOf(error) === "ENOENT" && missing !== undefined) return missing;
    const gone = ["ENOENT", "ENOTDIR"].includes(errnoOf(error) ?? "");
    throw imageError(
      gone ? "ERR_IMAGE_NOT_FOUND" : "ERR_IMAGE_LAYOUT",
      `Cannot read the OCI layout ${dir}`,
      gone ? `There is no file ${path}.` : messageOf(error),
      "Name a directory made by `skopeo copy … oci:DIR:TAG` or the like.",
      error,
    );
  }
  try {
    const result = indexSchema.safeParse(JSON.parse(text));
    if (result.success) return result.data;
    throw new Error(result.error.issues[0]?.message ?? "invalid");
  } catch (error) {
    throw imageError(
      "ERR_IMAGE_LAYOUT",
      `Cannot read the OCI layout ${dir}`,
      `${path} is not an image index: ${messageOf(error)}`,
      "Copy the image again: the index is damaged. In vmsan's own store, move it away; images are then fetched again.",
      error,
    );
  }
}

const EMPTY: Index = { manifests: [], unusable: [] };

/** The store's index.json as it is. */
export async function readStoreIndex(store: ContentStore): Promise<Index> {
  return readIndex(store.dir, EMPTY);
}

/** Change the store's index; the caller holds the store's lock. */
export async function writeStoreIndex(
  store: ContentStore,
  manifests: readonly IndexEntry[],
): Promise<void> {
  const index = { schemaVersion: 2, mediaType: MEDIA.index, manifests };
  try {
    await writeFileAtomic(join(store.dir, "index.json"), JSON.stringify(index, null, 1), 0o644);
  } catch (error) {
    throw storeError(error, "Cannot write the image store's index", store.dir);
  }
}

/** An entry's name, if it has one. */
export function nameOf(entry: IndexEntry): string | undefined {
  return entry.annotations[NAME];
}

/** All named images. */
export async function listNames(store: ContentStore): Promise<NamedManifest[]> {
  const index = await readStoreIndex(store);
  return index.manifests.flatMap((descriptor) => {
    const name = nameOf(descriptor);
    if (name === undefined) return [];
    const source = descriptor.annotations[SOURCE];
    return [
      {
        name,
        descriptor,
        sourceDigest: (source ?? descriptor.digest) as Digest,
        stored: descriptor.annotations[STORED] ?? "",
      },
    ];
  });
}

/** The image of that name that best fits the platform. */
export async function findName(
  store: ContentStore,
  name: string,
  platform: Platform,
): Promise<NamedManifest | undefined> {
  return best(
    (await listNames(store)).filter((entry) => entry.name === name),
    platform,
  );
}

/** The image with that digest, its own or that of the index it came from. */
export async function findDigest(
  store: ContentStore,
  digest: Digest,
  platform: Platform,
): Promise<NamedManifest | undefined> {
  const all = await listNames(store);
  const exact = all.find((entry) => entry.descriptor.digest === digest);
  return (
    exact ??
    best(
      all.filter((entry) => entry.sourceDigest === digest),
      platform,
    )
  );
}

/** The image with that digest that no name leads to any more, as long as the store has its manifest. */
export async function findUnnamed(
  store: ContentStore,
  digest: Digest,
  name: string,
): Promise<NamedManifest | undefined> {
  const size = await store.blobSize(digest);
  if (size === undefined) return undefined;
  const descriptor = { mediaType: "", digest, size, platform: undefined, annotations: {} };
  return { name, descriptor, sourceDigest: digest, stored: "" };
}

/** The entry with the best platform. */
function best(entries: NamedManifest[], platform: Platform): NamedManifest | undefined {
  let found: NamedManifest | undefined;
  let foundScore = 0;
  for (const entry of entries) {
    const offered = entry.descriptor.platform;
    const score = offered === undefined ? 1 : platformScore(platform, offered);
    if (score > foundScore) [found, foundScore] = [entry, score];
  }
  return found;
}

/** What {@link setName} records. */
export interface NewName {
  name: string;
  digest: Digest;
  size: number;
  mediaType: string;
  platform: Platform;
  sourceDigest?: Digest;
}

/** Give a stored manifest a name; the name's earlier image of the same platform loses it. */
export async function setName(store: ContentStore, entry: NewName): Promise<void> {
  const guard = await store.lock();
  try {
    const index = await readStoreIndex(store);
    const elsewhere = (other: IndexEntry): boolean =>
      entry.platform.os !== "" &&
      other.platform !== undefined &&
      platformScore(entry.platform, other.platform) !== 1000;
    const others = index.manifests.filter(
      (other) => nameOf(other) !== entry.name || elsewhere(other),
    );
    const { platform } = entry;
    const descriptor: IndexEntry = {
      mediaType: entry.mediaType,
      digest: entry.digest,
      size: entry.size,
      // An image made from a bare tree always says what it is for; a foreign one may not.
      platform: platform.os === "" ? undefined : platform,
      annotations: {
        [NAME]: entry.name,
        ...(entry.sourceDigest === undefined ? {} : { [SOURCE]: entry.sourceDigest }),
        [STORED]: new Date().toISOString(),
      },
    };
    await writeStoreIndex(store, [...others, descriptor]);
  } finally {
    guard.release();
  }
}
