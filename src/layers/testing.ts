/** For tests: layers made of lists of entries. */
import { createHash } from "node:crypto";
import { writeFileSync } from "node:fs";
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

/** Compress as a registry would. */
export function compress(bytes: Uint8Array, compression: Compression): Uint8Array {
  if (compression === "gzip") return gzipSync(bytes, { level: 1 });
  return compression === "zstd" ? zstdCompressSync(bytes) : bytes;
}
