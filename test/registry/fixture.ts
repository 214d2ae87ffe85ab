/**
 * Images for tests, made without any of the code under test: layouts written byte by byte,
 * to be pushed or packed by other people's tools.
 */
import { createHash } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync, zstdCompressSync } from "node:zlib";

/** A blob and its descriptor. */
export interface Blob {
  mediaType: string;
  digest: string;
  size: number;
  bytes: Buffer;
}

/** An image in memory. */
export interface FixtureImage {
  manifest: Blob;
  config: Blob;
  layers: Blob[];
}

const LAYER = "application/vnd.oci.image.layer.v1.tar";

/** Bytes as a blob. */
export function blob(mediaType: string, bytes: Buffer): Blob {
  const digest = `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
  return { mediaType, digest, size: bytes.length, bytes };
}

/** A tar archive with one regular file. */
export function tarOf(name: string, content: Buffer): Buffer {
  const header = Buffer.alloc(512);
  header.write(name, 0);
  header.write("0000644", 100);
  header.write("0000000", 108);
  header.write("0000000", 116);
  header.write(content.length.toString(8).padStart(11, "0"), 124);
  header.write("00000000000", 136);
  header.write("        0ustar\u000000", 148);
  header.write("ustar\u000000", 257);
  header[156] = 0x30;
  let sum = 0;
  for (const byte of header) sum += byte;
  header.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  const padding = Buffer.alloc((512 - (content.length % 512)) % 512);
  return Buffer.concat([header, content, padding, Buffer.alloc(1024)]);
}

/** Bytes that look random but are the same each time. */
export function noise(size: number, seed: number): Buffer {
  const bytes = Buffer.allocUnsafe(size);
  let state = (seed + 1) * 2_654_435_761;
  for (let at = 0; at < size; at += 1) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    bytes[at] = state >>> 16;
  }
  return bytes;
}

/** How an image is made. */
export interface ImageOptions {
  /** Uncompressed layers, bottom to top. */
  layers: Buffer[];
  compression?: "none" | "gzip" | "zstd";
  architecture?: string;
  config?: Record<string, unknown>;
}

/** Make an image. */
export function makeImage(options: ImageOptions): FixtureImage {
  const compression = options.compression ?? "gzip";
  const layers = options.layers.map((tar) => {
    if (compression === "none") return blob(LAYER, tar);
    if (compression === "zstd") return blob(`${LAYER}+zstd`, zstdCompressSync(tar));
    return blob(`${LAYER}+gzip`, gzipSync(tar, { level: 1 }));
  });
  const config = blob(
    "application/vnd.oci.image.config.v1+json",
    Buffer.from(
      JSON.stringify({
        os: "linux",
        architecture: options.architecture ?? "amd64",
        config: options.config ?? { Env: ["A=1"], Cmd: null },
        rootfs: {
          type: "layers",
          diff_ids: options.layers.map((tar) => blob(LAYER, tar).digest),
        },
      }),
    ),
  );
  return { manifest: manifestOf(config, layers), config, layers };
}

/** A descriptor as it stands in JSON. */
export function descriptor({ mediaType, digest, size }: Blob): Record<string, unknown> {
  return { mediaType, digest, size };
}

/** The manifest of a configuration and layers. */
export function manifestOf(config: Blob, layers: Blob[]): Blob {
  const mediaType = "application/vnd.oci.image.manifest.v1+json";
  const value = {
    schemaVersion: 2,
    mediaType,
    config: descriptor(config),
    layers: layers.map(descriptor),
  };
  return blob(mediaType, Buffer.from(JSON.stringify(value)));
}

/** An index of images for several architectures. */
export function makeIndex(images: { image: FixtureImage; architecture: string }[]): Blob {
  const mediaType = "application/vnd.oci.image.index.v1+json";
  const manifests = images.map(({ image, architecture }) => ({
    ...descriptor(image.manifest),
    platform: { os: "linux", architecture },
  }));
  return blob(mediaType, Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, manifests })));
}

/** Write an OCI layout with named entries. */
export function writeLayout(
  dir: string,
  entries: { top: Blob; tag: string; images: FixtureImage[] }[],
): void {
  mkdirSync(join(dir, "blobs/sha256"), { recursive: true });
  writeFileSync(join(dir, "oci-layout"), '{"imageLayoutVersion":"1.0.0"}');
  for (const { top, images } of entries) {
    const blobs = images.flatMap(({ manifest, config, layers }) => [manifest, config, ...layers]);
    for (const { digest, bytes } of [top, ...blobs]) {
      writeFileSync(join(dir, "blobs/sha256", digest.slice(7)), bytes);
    }
  }
  const manifests = entries.map(({ top, tag }) => ({
    ...descriptor(top),
    annotations: { "org.opencontainers.image.ref.name": tag },
  }));
  writeFileSync(join(dir, "index.json"), JSON.stringify({ schemaVersion: 2, manifests }));
}
