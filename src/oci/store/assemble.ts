/** From a manifest whose blobs are at hand to an {@link Image}: everything verified. */
import { statSync } from "node:fs";
import type { Compression, Digest, Image, LayerBlob, Platform } from "../../model/image.ts";
import { errnoOf } from "../../model/errors.ts";
import type { Descriptor } from "../../schema/oci.ts";
import { manifestOf } from "../documents/choose.ts";
import type { Choice, FoundManifest } from "../documents/choose.ts";
import { diffIdsOf, parseConfig, platformOf, toImageConfig } from "../documents/config.ts";
import { CONFIG_LIMIT, MANIFEST_LIMIT, checkManifest } from "../documents/documents.ts";
import { isNonDistributable } from "../documents/media.ts";
import { imageError } from "../errors.ts";
import { isCompression } from "../../util/packing/uncompressed.ts";
import { packingOf } from "./decompress.ts";
import { blobCorrupt, blobMissing, readVerified } from "./store.ts";
import type { ContentStore } from "./store.ts";

/** Where blobs are: the store, or a layout of somebody else. */
export type BlobPath = (digest: Digest) => string;

/** A choice among documents that are files. @param what the image's name for messages */
export function choiceOf(platform: Platform, pathOf: BlobPath, what: string): Choice {
  return {
    platform,
    what,
    readDocument: async ({ digest }) => readVerified(pathOf(digest), digest, MANIFEST_LIMIT),
    readConfig: async ({ digest }) => readVerified(pathOf(digest), digest, CONFIG_LIMIT),
  };
}

/**
 * Follow a descriptor through indexes to the manifest for a platform.
 * @param what the image's name for messages
 */
export async function findManifest(
  descriptor: Descriptor,
  platform: Platform,
  pathOf: BlobPath,
  what: string,
): Promise<FoundManifest> {
  const choice = choiceOf(platform, pathOf, what);
  const bytes = await choice.readDocument(descriptor);
  const { digest, mediaType } = descriptor;
  return manifestOf({ bytes, digest, mediaType }, choice);
}

/** The error for a layer that may be left out of registries and archives, and is. */
export function foreignLayer(layer: Descriptor, why: string, cause?: unknown): Error {
  return imageError(
    "ERR_IMAGE_FOREIGN_LAYER",
    `Cannot get layer ${layer.digest}`,
    `${why} Its type (${layer.mediaType}) allows that: it would come from an address in the manifest.`,
    "Copy the image again with its non-distributable layers, or use another image.",
    cause,
  );
}

/** How a layer is compressed. Throws ERR_IMAGE_LAYER_COMPRESSION for what layers are not to be. */
function compressionOf(layer: Descriptor, path: string): Compression {
  const packing = packingOf(path);
  if (isCompression(packing)) return packing;
  throw imageError(
    "ERR_IMAGE_LAYER_COMPRESSION",
    `Cannot use layer ${layer.digest}`,
    `It is compressed with ${packing}; layers of images are plain tar archives, or compressed with gzip or zstd.`,
    "Copy the image with other compression, e.g. `skopeo copy --dest-compress …`, or build it again.",
  );
}

/** Check one layer blob: present, right size, right digest. */
async function checkLayer(
  layer: Descriptor,
  path: string,
  store: ContentStore,
  signal?: AbortSignal,
): Promise<void> {
  let size: number;
  try {
    ({ size } = statSync(path));
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
    throw isNonDistributable(layer.mediaType)
      ? foreignLayer(layer, "It is not among the image's files.", error)
      : blobMissing(layer.digest, path, error);
  }
  if (size !== layer.size) {
    throw blobCorrupt(layer.digest, path, `It has ${size} bytes instead of ${layer.size}.`);
  }
  if ((await store.isVerified(path, layer.digest, signal)) === undefined) {
    throw blobCorrupt(layer.digest, path, "Its content does not match.");
  }
}

/**
 * Make an {@link Image} of a manifest whose blobs are all at hand, verifying each.
 * DiffIDs are those of the configuration, which the manifest's digest covers; whoever
 * decompresses a layer compares.
 */
export async function assembleImage(
  found: FoundManifest,
  pathOf: BlobPath,
  name: string,
  store: ContentStore,
  signal?: AbortSignal,
): Promise<Image> {
  const { manifest } = found;
  checkManifest(manifest, name);
  const { config: configDescriptor } = manifest;
  const bytes = await readVerified(
    pathOf(configDescriptor.digest),
    configDescriptor.digest,
    CONFIG_LIMIT,
  );
  const config = parseConfig(bytes, manifest.layers.length, name);
  const diffIds = diffIdsOf(config);
  const layers: LayerBlob[] = [];
  for (const [index, layer] of manifest.layers.entries()) {
    const path = pathOf(layer.digest);
    await checkLayer(layer, path, store, signal);
    layers.push({
      digest: layer.digest,
      size: layer.size,
      // parseConfig has counted them.
      diffId: diffIds[index] ?? layer.digest,
      compression: compressionOf(layer, path),
      path,
    });
  }
  return {
    name,
    digest: found.digest,
    configDigest: configDescriptor.digest,
    platform: platformOf(config),
    config: toImageConfig(config),
    layers,
  };
}

/** Every blob that a manifest needs, itself included. */
export function blobsOf(found: Pick<FoundManifest, "digest" | "manifest">): Digest[] {
  const { manifest } = found;
  return [found.digest, manifest.config.digest, ...manifest.layers.map((layer) => layer.digest)];
}
