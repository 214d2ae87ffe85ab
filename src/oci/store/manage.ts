/** The store's images as users see them: list, find, inspect, tag. */
import type { Digest, Image, ImageConfig, Platform } from "../../model/image.ts";
import type { FoundManifest } from "../documents/choose.ts";
import { parseConfig } from "../documents/config.ts";
import { CONFIG_LIMIT } from "../documents/documents.ts";
import { assembleImage, blobsOf, findManifest } from "./assemble.ts";
import { imageError } from "../errors.ts";
import { findDigest, findName, listNames, setName } from "./names.ts";
import type { NamedManifest } from "./names.ts";
import { hostPlatform } from "../documents/platform.ts";
import { formatReference, isDigest, parseReference } from "../reference.ts";
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
