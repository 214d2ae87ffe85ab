/** For tests: layers made of lists of entries. */
import { createHash } from "node:crypto";
import { existsSync, linkSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync, zstdCompressSync } from "node:zlib";
import type { Compression, LayerBlob } from "../model/image.ts";
import type { TarEntry } from "./tar/reader.ts";
import { encodeHeader, END_OF_ARCHIVE, padTo } from "./tar/writer.ts";

/** An entry as a test writes it: a path, and whatever differs from an empty file of root's. */
export type TestEntry = Partial<TarEntry> & {
  path: string;
  /** Content of a file. */
  data?: string | Uint8Array;
  /** Bytes to write as they are instead of everything else. */
  raw?: Uint8Array;
};

/** The archive of these entries. Paths ending in `/` are directories. */
export function makeTar(entries: readonly TestEntry[], end: Uint8Array = END_OF_ARCHIVE): Buffer {
  const parts: Uint8Array[] = [];
  for (const { data, raw, ...given } of entries) {
    if (raw !== undefined) {
      parts.push(raw);
      continue;
    }
    const content =
      typeof data === "string" ? Buffer.from(data, "latin1") : (data ?? new Uint8Array());
    const directory = given.path.endsWith("/");
    const header: TarEntry = {
      kind: directory ? "directory" : "file",
      link: "",
      mode: directory ? 0o755 : 0o644,
      uid: 0,
      gid: 0,
      size: content.length,
      mtime: 1_700_000_000,
      mtimeNsec: 0,
      major: 0,
      minor: 0,
      xattrs: undefined,
      ...given,
    };
    parts.push(encodeHeader(header), content, padTo(content.length));
  }
  return Buffer.concat([...parts, end]);
}

/** Digest of bytes, as manifests have it. */
export function digestOf(bytes: Uint8Array): `sha256:${string}` {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

/** Put an archive into a directory as a layer. */
export function storeLayer(
  dir: string,
  tar: Uint8Array,
  compression: Compression = "none",
  blob: Uint8Array = compress(tar, compression),
): LayerBlob {
  const digest = digestOf(blob);
  const path = join(dir, digest.replace(":", "-"));
  writeFileSync(path, blob);
  return { digest, size: blob.length, diffId: digestOf(tar), compression, path };
}

/**
 * An OCI layout around stored layers, for umoci.
 * @param dir made by this
 * @returns `DIR:image`
 */
export function storeLayout(dir: string, layers: readonly LayerBlob[]): string {
  mkdirSync(join(dir, "blobs/sha256"), { recursive: true });
  const put = (value: unknown): { digest: string; size: number } => {
    const bytes = Buffer.from(JSON.stringify(value));
    const digest = digestOf(bytes);
    writeFileSync(join(dir, "blobs/sha256", digest.slice(7)), bytes);
    return { digest, size: bytes.length };
  };
  for (const layer of layers) {
    const to = join(dir, "blobs/sha256", layer.digest.slice(7));
    if (!existsSync(to)) linkSync(layer.path, to);
  }
  const type = "application/vnd.oci.image";
  const config = put({
    architecture: "amd64",
    os: "linux",
    config: {},
    rootfs: { type: "layers", diff_ids: layers.map(({ diffId }) => diffId) },
  });
  const suffix = { gzip: "+gzip", zstd: "+zstd", none: "" };
  const manifest = put({
    schemaVersion: 2,
    mediaType: `${type}.manifest.v1+json`,
    config: { mediaType: `${type}.config.v1+json`, ...config },
    layers: layers.map(({ digest, size, compression }) => ({
      mediaType: `${type}.layer.v1.tar${suffix[compression]}`,
      digest,
      size,
    })),
  });
  const annotations = { "org.opencontainers.image.ref.name": "image" };
  const manifests = [{ mediaType: `${type}.manifest.v1+json`, ...manifest, annotations }];
  writeFileSync(join(dir, "index.json"), JSON.stringify({ schemaVersion: 2, manifests }));
  writeFileSync(join(dir, "oci-layout"), JSON.stringify({ imageLayoutVersion: "1.0.0" }));
  return `${dir}:image`;
}

/** Compress as a registry would. */
export function compress(bytes: Uint8Array, compression: Compression): Uint8Array {
  if (compression === "gzip") return gzipSync(bytes, { level: 1 });
  return compression === "zstd" ? zstdCompressSync(bytes) : bytes;
}
