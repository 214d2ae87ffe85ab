/** From a manifest whose blobs are at hand to an {@link Image}: everything verified. */
import { closeSync, openSync, readSync, statSync } from "node:fs";
import type { Compression, Digest, Image, LayerBlob, Platform } from "../../model/image.ts";
import { errnoOf } from "../../model/errors.ts";
import type { Descriptor, Manifest } from "../../schema/oci.ts";
import {
  CONFIG_LIMIT,
  MANIFEST_LIMIT,
  checkManifest,
  diffIdsOf,
  parseConfig,
  parseDocument,
  platformOf,
  selectManifest,
  sniffCompression,
  toImageConfig,
} from "../documents/documents.ts";
import { blobCorrupt, blobMissing, readVerified } from "./store.ts";
import type { ContentStore } from "./store.ts";

/** Where blobs are: the store, or a layout of somebody else. */
export type BlobPath = (digest: Digest) => string;

/** A manifest with its own descriptor's data. */
export interface FoundManifest {
  digest: Digest;
  size: number;
  mediaType: string;
  manifest: Manifest;
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
  let at = descriptor;
  // Indexes may hold indexes; nobody nests them deeper than twice.
  for (let depth = 0; depth < 4; depth += 1) {
    const bytes = await readVerified(pathOf(at.digest), at.digest, MANIFEST_LIMIT);
    const document = parseDocument(bytes, at.mediaType, what);
    if (document.kind === "manifest") {
      return {
        digest: at.digest,
        size: bytes.length,
        mediaType: document.mediaType,
        manifest: document.manifest,
      };
    }
    at = selectManifest(document.index.manifests, platform, what);
  }
  throw blobCorrupt(descriptor.digest, what, "Its indexes are nested more than four deep.");
}

/** The first bytes of a file tell how it is compressed. */
export function compressionOf(path: string): Compression {
  // Synchronous for the reason that store.ts gives.
  const file = openSync(path, "r");
  try {
    const head = Buffer.alloc(4);
    return sniffCompression(head.subarray(0, readSync(file, head, 0, 4, 0)));
  } finally {
    closeSync(file);
  }
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
    if (errnoOf(error) === "ENOENT") throw blobMissing(layer.digest, path, error);
    throw error;
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
      compression: compressionOf(path),
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
