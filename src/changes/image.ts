/** An image with one more layer: base, changes and what is to be said of them become an image of the store. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { Readable, Transform } from "node:stream";
import { createGzip } from "node:zlib";
import type { CommitReport, CommitRequest } from "../model/api/images.ts";
import type { Digest, Image } from "../model/image.ts";
import { VmsanError } from "../model/errors.ts";
import type { ContentStore, Lease } from "../oci/images.ts";
import { formatReference, parseReference } from "../oci/images.ts";
import { protectBytes } from "../oci/archives/archive-file.ts";
import { CONFIG_LIMIT, MANIFEST_LIMIT } from "../oci/documents/documents.ts";
import { MEDIA } from "../oci/documents/media.ts";
import { ingest } from "../oci/store/ingest.ts";
import { setName } from "../oci/store/names.ts";
import { locateBlob } from "../oci/store/locate.ts";
import { readVerified } from "../oci/store/store.ts";
import { withInstructions } from "./instructions.ts";
import type { RunConfig } from "./instructions.ts";

/** Compression: three times as fast as the best one, a few percent larger. */
const GZIP_LEVEL = 4;

/** What {@link addLayer} takes. */
export interface AddLayerOptions {
  store: ContentStore;
  lease: Lease;
  /** The image below; its blobs may lie elsewhere. */
  base: Image;
  /** Digest of the base's manifest. */
  request: CommitRequest;
  /** The layer, uncompressed. */
  layer: AsyncIterable<Buffer>;
  signal: AbortSignal;
  /** Bytes of the layer so far, uncompressed. */
  onBytes: (bytes: number) => void;
}

/** A document of the image. */
async function readDocument(
  store: ContentStore,
  image: Image,
  digest: Digest,
  limit: number,
): Promise<Record<string, unknown>> {
  const bytes = await readVerified(locateBlob(store, image, digest), digest, limit);
  return JSON.parse(bytes.toString("utf8")) as Record<string, unknown>;
}

/** A list of a document; empty when it is none. */
function listOf(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [];
}

/** An object of a document; empty when it is none. */
function objectOf(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : {};
}

/** Have the base's layers in the store, which may have been used where they are. */
async function takeBase({ store, lease, base, signal }: AddLayerOptions): Promise<void> {
  await lease.protect(base.layers.map(({ digest }) => digest));
  for (const { digest, size, path } of base.layers) {
    if ((await store.blobSize(digest)) === size) continue;
    const source = createReadStream(path, { highWaterMark: 1 << 20 });
    await ingest(store, lease, source, { digest, size }, `layer ${digest}`, signal);
  }
}

/** Store the layer, compressed. */
async function takeLayer(
  options: AddLayerOptions,
): Promise<CommitReport["layer"] & { digest: Digest; diffId: Digest }> {
  const { store, lease, layer, signal, onBytes } = options;
  const plain = createHash("sha256");
  let bytes = 0;
  const meter = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      plain.update(chunk);
      bytes += chunk.length;
      onBytes(bytes);
      done(null, chunk);
    },
  });
  const gzip = createGzip({ level: GZIP_LEVEL, chunkSize: 256 << 10 });
  const source = Readable.from(layer, { objectMode: false });
  source.on("error", (error) => gzip.destroy(error));
  meter.on("error", (error) => gzip.destroy(error));
  source.pipe(meter).pipe(gzip);
  try {
    const { digest, size } = await ingest(store, lease, gzip, {}, "the VM's changes", signal);
    return { digest, size, diffId: `sha256:${plain.digest("hex")}` };
  } finally {
    source.destroy();
  }
}

/**
 * Store an image of the base's layers and one more, and name it.
 * @throws ERR_VALIDATION_IMAGE_REF, ERR_VALIDATION_FLAGS, ERR_IMAGE_*
 */
export async function addLayer(options: AddLayerOptions): Promise<Omit<CommitReport, "warnings">> {
  const { store, lease, base, request } = options;
  const reference = parseReference(request.name);
  if (reference.digest !== undefined) {
    throw new VmsanError({
      code: "ERR_VALIDATION_IMAGE_REF",
      message: `Cannot name an image ${request.name}`,
      why: "A digest is what a commit results in; it cannot be chosen.",
      fix: "Give a name with a tag.",
    });
  }
  const name = formatReference(reference);
  const config = await readDocument(store, base, base.configDigest, CONFIG_LIMIT);
  const manifest = await readDocument(store, base, base.digest, MANIFEST_LIMIT);
  // Before anything is read: an instruction that cannot be used shall cost no time.
  const run: RunConfig = withInstructions(objectOf(config["config"]), request.changes);
  await takeBase(options);
  const layer = await takeLayer(options);
  const now = new Date().toISOString();
  const rootfs = objectOf(config["rootfs"]);
  const { container: _id, container_config: _legacy, ...kept } = config;
  const document = {
    ...kept,
    created: now,
    ...(request.author === undefined ? {} : { author: request.author }),
    config: run,
    rootfs: { type: "layers", diff_ids: [...listOf(rootfs["diff_ids"]), layer.diffId] },
    history: [
      ...listOf(config["history"]),
      {
        created: now,
        created_by: "vmsan commit",
        ...(request.author === undefined ? {} : { author: request.author }),
        ...(request.message === undefined ? {} : { comment: request.message }),
      },
    ],
  };
  const bytes = Buffer.from(JSON.stringify(document));
  const configDigest = await protectBytes(bytes, store, lease);
  const docker = manifest["mediaType"] === MEDIA.dockerManifest;
  const oldConfig = objectOf(manifest["config"]);
  const made = {
    schemaVersion: 2,
    mediaType: docker ? MEDIA.dockerManifest : MEDIA.manifest,
    config: {
      mediaType: oldConfig["mediaType"] ?? MEDIA.config,
      digest: configDigest,
      size: bytes.length,
    },
    layers: [
      ...listOf(manifest["layers"]),
      {
        mediaType: docker
          ? "application/vnd.docker.image.rootfs.diff.tar.gzip"
          : `${MEDIA.layer}+gzip`,
        digest: layer.digest,
        size: layer.size,
      },
    ],
  };
  const manifestBytes = Buffer.from(JSON.stringify(made));
  const digest = await protectBytes(manifestBytes, store, lease);
  await setName(store, {
    name,
    digest,
    size: manifestBytes.length,
    mediaType: made.mediaType,
    platform: base.platform,
  });
  return { name, digest, layer };
}
