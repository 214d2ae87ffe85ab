/** Images of the store as one file: an OCI archive or what `docker load` takes. */
import { createReadStream } from "node:fs";
import { open, rename, rm } from "node:fs/promises";
import { once } from "node:events";
import type { Writable } from "node:stream";
import type { Digest, Image, Platform } from "../../model/image.ts";
import { temporarySibling } from "../../util/atomic.ts";
import { assembleImage, findManifest } from "../store/assemble.ts";
import { inflate } from "../store/decompress.ts";
import { MEDIA } from "../documents/media.ts";
import { storeError } from "../errors.ts";
import { withLease } from "../store/leases.ts";
import { findImage } from "../store/manage.ts";
import { NAME } from "../store/names.ts";
import type { NamedManifest } from "../store/names.ts";
import { blobCorrupt, blobName, hexOf } from "../store/store.ts";
import type { ContentStore } from "../store/store.ts";
import { END_OF_ARCHIVE, padTo } from "../../layers/layers.ts";
import { tarHeader } from "./tar.ts";

/** Kinds of archives. */
export type ArchiveFormat = "oci-archive" | "docker-archive";

/** What {@link saveImage} takes. */
export interface SaveOptions {
  store: ContentStore;
  /** The images' names or digests; at least one. */
  images: readonly string[];
  format: ArchiveFormat;
  platform?: Platform;
  signal?: AbortSignal;
}

/** A member: its name, its size, and how its content is sent. */
interface Part {
  name: string;
  size: number;
  send: (write: (bytes: Uint8Array) => Promise<void>) => Promise<void>;
}

/** A member with content in memory. */
function bytesPart(name: string, text: string | Buffer): Part {
  const bytes = Buffer.from(text);
  return { name, size: bytes.length, send: async (write) => write(bytes) };
}

/** A member with the content of a file. */
function filePart(name: string, path: string, size: number): Part {
  return {
    name,
    size,
    send: async (write) => {
      for await (const bytes of createReadStream(path, { highWaterMark: 1 << 20 })) {
        await write(bytes as Buffer);
      }
    },
  };
}

/** An image of the store, by name or digest, with its blobs verified. */
interface Kept {
  entry: NamedManifest;
  found: Awaited<ReturnType<typeof findManifest>>;
  image: Image;
}

/** Find an image and verify its blobs. */
export async function keptImage(
  { store, platform, signal }: Pick<SaveOptions, "store" | "platform" | "signal">,
  text: string,
): Promise<Kept> {
  const entry = await findImage(store, text, platform);
  const pathOf = (digest: Digest): string => store.blobPath(digest);
  const wanted = entry.descriptor.platform ?? platform ?? { os: "linux", architecture: "" };
  const found = await findManifest(entry.descriptor, wanted, pathOf, entry.name);
  return { entry, found, image: await assembleImage(found, pathOf, entry.name, store, signal) };
}

/** One image of an archive: what it adds to the archive's own documents, and its members. */
interface SavedImage {
  /** For index.json, or for manifest.json. */
  entry: object;
  parts: Part[];
}

/** An image as an archive has it. */
async function savedImage(options: SaveOptions, text: string): Promise<SavedImage> {
  const { store, format } = options;
  const { entry, found, image } = await keptImage(options, text);
  const pathOf = (digest: Digest): string => store.blobPath(digest);
  // A name such as rootfs:/dir is no reference that other tools could read.
  // Nor is one with the digest of an index, of which the archive holds one image.
  const other = entry.name.includes("@") && !entry.name.endsWith(`@${found.digest}`);
  const tag = /^[a-z-]+:\//.test(entry.name) || other ? undefined : entry.name;
  if (format === "oci-archive") {
    const { config, layers } = found.manifest;
    const blobs = new Map([...layers, config].map((blob) => [blob.digest, blob.size]));
    blobs.set(found.digest, found.size);
    return {
      entry: {
        mediaType: found.mediaType,
        digest: found.digest,
        size: found.size,
        platform: image.platform,
        ...(tag === undefined ? {} : { annotations: { [NAME]: tag } }),
      },
      parts: [...blobs].map(([digest, size]) => filePart(blobName(digest), pathOf(digest), size)),
    };
  }
  const parts: Part[] = [];
  for (const layer of new Map(image.layers.map((each) => [each.diffId, each])).values()) {
    const name = `${hexOf(layer.diffId)}.tar`;
    if (layer.compression === "none") {
      parts.push(filePart(name, layer.path, layer.size));
      continue;
    }
    // docker load wants plain layers, and tar wants their size first: decompressed twice.
    let size = 0;
    await inflate(
      createReadStream(layer.path),
      layer.compression,
      (bytes) => {
        size += bytes.length;
      },
      layer.digest,
    );
    const send: Part["send"] = async (write) =>
      inflate(createReadStream(layer.path), layer.compression, write, layer.digest);
    parts.push({ name, size, send });
  }
  const configName = `${hexOf(image.configDigest)}.json`;
  const { size } = found.manifest.config;
  return {
    entry: {
      Config: configName,
      RepoTags: tag === undefined || tag.includes("@") ? [] : [tag],
      Layers: image.layers.map((layer) => `${hexOf(layer.diffId)}.tar`),
    },
    parts: [...parts, filePart(configName, pathOf(image.configDigest), size)],
  };
}

/** The members of the archive; what several images share is in it once. */
async function partsOf(options: SaveOptions): Promise<Part[]> {
  const saved: SavedImage[] = [];
  for (const image of options.images) saved.push(await savedImage(options, image));
  const entries = saved.map(({ entry }) => entry);
  const parts = new Map(saved.flatMap((one) => one.parts).map((part) => [part.name, part]));
  if (options.format === "docker-archive") {
    return [...parts.values(), bytesPart("manifest.json", JSON.stringify(entries))];
  }
  const index = { schemaVersion: 2, mediaType: MEDIA.index, manifests: entries };
  return [
    bytesPart("oci-layout", '{"imageLayoutVersion":"1.0.0"}'),
    bytesPart("index.json", JSON.stringify(index)),
    ...parts.values(),
  ];
}

/** Send an archive; the images stay in the store meanwhile. */
async function send(
  options: SaveOptions,
  write: (bytes: Uint8Array) => Promise<void>,
): Promise<void> {
  const { store, images, signal, platform } = options;
  await withLease(
    store,
    `saving of ${images.join(", ")}`,
    async (lease) => {
      for (const image of images) {
        await lease.protect([(await findImage(store, image, platform)).descriptor.digest]);
      }
      for (const part of await partsOf(options)) {
        signal?.throwIfAborted();
        await write(tarHeader(part.name, part.size));
        let sent = 0;
        await part.send(async (bytes) => {
          signal?.throwIfAborted();
          sent += bytes.length;
          await write(bytes);
        });
        if (sent !== part.size) {
          throw blobCorrupt("sha256:", part.name, `It has ${sent} bytes instead of ${part.size}.`);
        }
        await write(padTo(part.size));
      }
      await write(END_OF_ARCHIVE);
    },
    signal,
  );
}

/** Save images to a file, which appears only when it is whole. */
export async function saveImage(options: SaveOptions & { path: string }): Promise<void> {
  const aside = temporarySibling(options.path);
  try {
    const handle = await open(aside, "wx", 0o644);
    try {
      await send(options, async (bytes) => {
        await handle.write(bytes);
      });
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(aside, options.path);
  } catch (error) {
    await rm(aside, { force: true });
    throw storeError(error, `Cannot save ${options.images.join(", ")}`, options.path);
  }
}

/** Save images to a stream, e.g. standard output. The stream is not ended. */
export async function saveImageTo(stream: Writable, options: SaveOptions): Promise<void> {
  const { signal } = options;
  await send(options, async (bytes) => {
    if (!stream.write(bytes)) await once(stream, "drain", signal === undefined ? {} : { signal });
  });
}
