/** A bare file system, as `docker export` writes one, as an image of one layer. */
import { createReadStream } from "node:fs";
import type { Digest, Platform } from "../model/image.ts";
import { openArchive, protectBytes, spool } from "../oci/archives/archive-file.ts";
import { MEDIA } from "../oci/documents/media.ts";
import { formatReference, parseReference } from "../oci/images.ts";
import type { ContentStore, Lease } from "../oci/images.ts";
import { ingest } from "../oci/store/ingest.ts";
import { hexOf } from "../oci/store/store.ts";
import { setName } from "../oci/store/names.ts";
import { withInstructions } from "./instructions.ts";

/** What {@link importTree} takes. */
export interface ImportOptions {
  store: ContentStore;
  lease: Lease;
  platform: Platform;
  /** How the image is to be called; absent: after its digest. */
  name?: string;
  /** Instructions of a Dockerfile for its configuration. */
  changes: readonly string[];
  message?: string;
  signal: AbortSignal;
}

/**
 * Store an image of one archive of files, compressed or not, and name it.
 * @throws ERR_IMAGE_ARCHIVE when it is no archive, ERR_VALIDATION_FLAGS, ERR_VALIDATION_IMAGE_REF
 */
export async function importTree(
  stream: AsyncIterable<Uint8Array>,
  options: ImportOptions,
): Promise<{ name: string; digest: Digest; configDigest: Digest }> {
  const { store, lease, platform, changes, message, signal } = options;
  const wished =
    options.name === undefined ? undefined : formatReference(parseReference(options.name));
  // Before anything is read: an instruction that cannot be used shall cost no time.
  const config = withInstructions({}, changes);
  const label = "the file system";
  const context = { store, lease, platform, signal };
  const { path } = await openArchive(await spool(stream, label, context), label, context);
  const layer = await ingest(store, lease, createReadStream(path), {}, label, signal);
  const created = new Date().toISOString();
  const bytes = Buffer.from(
    JSON.stringify({
      ...platform,
      created,
      config,
      rootfs: { type: "layers", diff_ids: [layer.digest] },
      history: [{ created, comment: message ?? "Imported" }],
    }),
  );
  const configDigest = await protectBytes(bytes, store, lease);
  const manifest = {
    schemaVersion: 2,
    mediaType: MEDIA.manifest,
    config: { mediaType: MEDIA.config, digest: configDigest, size: bytes.length },
    layers: [{ mediaType: MEDIA.layer, ...layer }],
  };
  const manifestBytes = Buffer.from(JSON.stringify(manifest));
  const digest = await protectBytes(manifestBytes, store, lease);
  const name = wished ?? `localhost/imported:${hexOf(digest).slice(0, 12)}`;
  const size = manifestBytes.length;
  await setName(store, { name, digest, size, mediaType: MEDIA.manifest, platform });
  return { name, digest, configDigest };
}
