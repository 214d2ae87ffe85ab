/**
 * oci/store/: where verified content is kept. Takes bytes; gives blobs by digest, images by name,
 * and leases and pins that say what must stay.
 *
 * store.ts: the content store, an OCI image layout (image-layout.md) with what it takes to be shared
 * by several processes.
 *
 *     oci-layout, index.json   the images, by name; any OCI tool can read them
 *     blobs/sha256/HEX         verified content, put there by rename only
 *     partial/HEX              downloads that have not ended
 *     verified/HEX             which file was found to have the digest, and when (a cache, of
 *                              files that are worth it)
 *     leases/ID/               what a running process uses, and its temporary files
 *     pins/OWNER.json          what must stay until its owner says otherwise
 *     locks/                   lock files
 *
 * Looking at a file and remembering it are done synchronously: each takes microseconds, while
 * a turn of Node's thread pool takes a hundred times as long on a busy machine, and an image of
 * 30 layers needs hundreds of them. Content is always read and written asynchronously.
 */
import { createHash, randomBytes } from "node:crypto";
import { readFileSync, renameSync, statSync, writeFileSync } from "node:fs";
import { mkdir, open, readFile, rm, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import type { BigIntStats } from "node:fs";
import type { Digest } from "../../model/image.ts";
import { errnoOf } from "../../model/errors.ts";
import { writeFileAtomic } from "../../util/atomic.ts";
import { lock } from "../../util/lock.ts";
import type { Lock } from "../../util/lock.ts";
import { imageError, storeError } from "../errors.ts";

/** The hex digits of a digest. */
export function hexOf(digest: Digest): string {
  return digest.slice("sha256:".length);
}

/** Where a layout keeps a blob, relative to its directory. */
export function blobName(digest: Digest): string {
  return `blobs/sha256/${hexOf(digest)}`;
}

/** Digest of bytes in memory. */
export function digestOf(bytes: Uint8Array): Digest {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

/** Digest and size of a file's content, read in pieces of 1 MiB. */
export async function digestFile(
  path: string,
  signal?: AbortSignal,
): Promise<{ digest: Digest; size: number }> {
  const hash = createHash("sha256");
  const handle = await open(path, "r");
  let size = 0;
  try {
    const buffer = Buffer.allocUnsafe(1 << 20);
    for (;;) {
      signal?.throwIfAborted();
      const { bytesRead } = await handle.read(buffer, 0, buffer.length, size);
      if (bytesRead === 0) break;
      hash.update(buffer.subarray(0, bytesRead));
      size += bytesRead;
    }
  } finally {
    await handle.close();
  }
  return { digest: `sha256:${hash.digest("hex")}`, size };
}

/** What tells that a file has not been touched since it was looked at. */
function stampOf(stats: BigIntStats): string {
  return [stats.dev, stats.ino, stats.size, stats.mtimeNs, stats.ctimeNs].join(":");
}

/**
 * Largest content, in bytes, of which is not remembered that it was verified: reading it again
 * takes no longer than looking up when that was.
 */
const READ_AGAIN = 256 << 10;

/** What is remembered of a verified file. */
export interface Verified {
  /** Digest of the uncompressed content, once it has been found. */
  diffId?: Digest;
}

/** A directory of images. Open one with {@link openStore}. */
export class ContentStore {
  /** Absolute path. */
  readonly dir: string;

  /** Use {@link openStore}. */
  constructor(dir: string) {
    this.dir = dir;
  }

  /** Where a blob is or would be. */
  blobPath(digest: Digest): string {
    return join(this.dir, "blobs", "sha256", hexOf(digest));
  }

  /** Where the bytes of an unfinished download are. */
  partialPath(digest: Digest): string {
    return join(this.dir, "partial", hexOf(digest));
  }

  /** Hold the lock that guards the index, leases and removal; for short work only. */
  async lock(signal?: AbortSignal): Promise<Lock> {
    return lock(join(this.dir, "locks", "store"), signal === undefined ? {} : { signal });
  }

  /**
   * Hold the lock on fetching one blob, as long as it takes. Locks are shared by blobs that
   * start with the same three digits, so that their files need never be removed.
   */
  async lockBlob(digest: Digest, signal?: AbortSignal): Promise<Lock> {
    const path = join(this.dir, "locks", `blob-${hexOf(digest).slice(0, 3)}`);
    const day = 86_400_000;
    return lock(path, { timeoutMs: day, ...(signal === undefined ? {} : { signal }) });
  }

  /** Size of a stored blob in bytes; undefined when it is not there. */
  async blobSize(digest: Digest): Promise<number | undefined> {
    return statSync(this.blobPath(digest), { throwIfNoEntry: false })?.size;
  }

  /**
   * Whether `path` has this digest. Reads it only when it has changed since it was last
   * found to have it, as its inode, size and times tell.
   * @returns what is remembered of it, or undefined when the content is another one
   */
  async isVerified(
    path: string,
    digest: Digest,
    signal?: AbortSignal,
  ): Promise<Verified | undefined> {
    const stats = statSync(path, { bigint: true });
    const known = this.#readStamp(path, digest);
    if (known !== undefined && known.stamp === stampOf(stats)) {
      return known.diffId === undefined ? {} : { diffId: known.diffId };
    }
    if (stats.size <= READ_AGAIN) {
      return digestOf(readFileSync(path)) === digest ? {} : undefined;
    }
    const found = await digestFile(path, signal);
    if (found.digest !== digest) return undefined;
    await this.markVerified(path, digest);
    return {};
  }

  /** The digest last found for a file outside the store, if it has not changed since. */
  async knownFile(path: string): Promise<{ digest: Digest; diffId?: Digest } | undefined> {
    const key = `file-${createHash("sha256").update(path).digest("hex")}`;
    const known = this.#readStampFile(join(this.dir, "verified", key));
    if (known?.digest === undefined || known.path !== path) return undefined;
    const stats = statSync(path, { bigint: true });
    if (known.stamp !== stampOf(stats)) return undefined;
    return {
      digest: known.digest,
      ...(known.diffId === undefined ? {} : { diffId: known.diffId }),
    };
  }

  /** Remember that `path` has this digest, as of now. */
  async markVerified(path: string, digest: Digest, verified: Verified = {}): Promise<void> {
    const stats = statSync(path, { bigint: true });
    if (stats.size <= READ_AGAIN && verified.diffId === undefined) return;
    const text = JSON.stringify({ path, digest, stamp: stampOf(stats), ...verified });
    // A cache: when it is torn or lost, the content is read again.
    writeFileSync(this.#stampPath(path, digest), text);
  }

  /** Stamps of the store's own blobs go by digest, those of other files by path. */
  #stampPath(path: string, digest: Digest): string {
    const name =
      path === this.blobPath(digest)
        ? hexOf(digest)
        : `file-${createHash("sha256").update(path).digest("hex")}`;
    return join(this.dir, "verified", name);
  }

  /** The stamp of a path, if it is about this digest. */
  #readStamp(path: string, digest: Digest): { stamp: string; diffId?: Digest } | undefined {
    const known = this.#readStampFile(this.#stampPath(path, digest));
    return known?.digest === digest && known.path === path ? known : undefined;
  }

  /** A stamp file's content; undefined when it is missing or torn. */
  #readStampFile(
    file: string,
  ): { path: string; digest: Digest; stamp: string; diffId?: Digest } | undefined {
    try {
      const value = JSON.parse(readFileSync(file, "utf8")) as Record<string, unknown>;
      if (typeof value["stamp"] !== "string" || typeof value["path"] !== "string") return undefined;
      const digest = String(value["digest"]);
      const diffId = value["diffId"];
      return {
        path: value["path"],
        stamp: value["stamp"],
        digest: digest as Digest,
        ...(typeof diffId === "string" ? { diffId: diffId as Digest } : {}),
      };
    } catch {
      // ENOENT or torn JSON: nothing is remembered, so the content is read again.
      return undefined;
    }
  }

  /** Read a small verified blob. Throws ERR_IMAGE_BLOB_MISSING or ERR_IMAGE_BLOB_CORRUPT. */
  async readBlob(digest: Digest, limit: number): Promise<Buffer> {
    return readVerified(this.blobPath(digest), digest, limit);
  }

  /** Store bytes that are in memory. @returns their digest */
  async putBytes(bytes: Uint8Array): Promise<Digest> {
    const digest = digestOf(bytes);
    const path = this.blobPath(digest);
    if ((await this.blobSize(digest)) === bytes.length) {
      if ((await this.isVerified(path, digest)) !== undefined) return digest;
    }
    try {
      await writeFileAtomic(path, bytes, 0o644);
    } catch (error) {
      throw storeError(error, `Cannot store ${digest}`, this.dir);
    }
    return digest;
  }

  /**
   * Make a finished, synced and verified file of this store the blob of that digest.
   * @param verified what is known of it
   */
  async publish(file: string, digest: Digest, verified: Verified = {}): Promise<void> {
    const path = this.blobPath(digest);
    renameSync(file, path);
    await this.markVerified(path, digest, verified);
  }

  /** Drop a blob whose content is wrong, so that it is fetched again. */
  async discard(digest: Digest): Promise<void> {
    await rm(this.blobPath(digest), { force: true });
    await rm(join(this.dir, "verified", hexOf(digest)), { force: true });
  }
}

/** Read a small file that must have this digest, wherever it is. */
export async function readVerified(path: string, digest: Digest, limit: number): Promise<Buffer> {
  let bytes: Buffer;
  try {
    const { size } = await stat(path);
    if (size > limit) {
      throw imageError(
        "ERR_IMAGE_TOO_LARGE",
        `Cannot read ${digest}`,
        `It has ${size} bytes; at most ${limit} are allowed for this kind of document.`,
        "Check that the reference names an ordinary image.",
      );
    }
    bytes = await readFile(path);
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
    throw blobMissing(digest, path, error);
  }
  if (digestOf(bytes) !== digest) throw blobCorrupt(digest, path, "Its content does not match.");
  return bytes;
}

/** The error for a blob that is not there. */
export function blobMissing(digest: Digest, path: string, cause?: unknown): Error {
  return imageError(
    "ERR_IMAGE_BLOB_MISSING",
    `Cannot read ${digest} of the image`,
    `There is no file ${path}.`,
    "Pull or copy the image again; the one at hand is not complete.",
    cause,
  );
}

/** The error for a blob with other content than its digest says. */
export function blobCorrupt(digest: Digest, path: string, why: string): Error {
  return imageError(
    "ERR_IMAGE_BLOB_CORRUPT",
    `Cannot use ${path}`,
    `${why} Expected ${digest}.`,
    "Pull or copy the image again (a runtime made here: vmsan setup --runtime NAME --refresh); if it happens again, check the disk and memory.",
  );
}

/**
 * Open the content store in a directory, making it if needed.
 * Throws ERR_IMAGE_STORE_ACCESS, ERR_IMAGE_STORE_FULL, ERR_IMAGE_STORE_LAYOUT.
 */
export async function openStore(dir: string): Promise<ContentStore> {
  try {
    for (const name of ["blobs/sha256", "partial", "verified", "leases", "pins", "locks"]) {
      await mkdir(join(dir, name), { recursive: true });
    }
    const layout = join(dir, "oci-layout");
    const text = await readFile(layout, "utf8").catch((error: unknown) => {
      if (errnoOf(error) === "ENOENT") return undefined;
      throw error;
    });
    if (text === undefined) {
      await writeFileAtomic(layout, '{"imageLayoutVersion":"1.0.0"}', 0o644);
    } else if (!/"imageLayoutVersion"\s*:\s*"1\.\d+\.\d+"/.test(text)) {
      throw imageError(
        "ERR_IMAGE_STORE_LAYOUT",
        `Cannot open the image store ${dir}`,
        "Its oci-layout file names another version than 1.",
        "Set VMSAN_DIR to another directory, or update vmsan.",
      );
    }
  } catch (error) {
    throw storeError(error, `Cannot open the image store ${dir}`, dir);
  }
  return new ContentStore(dir);
}

/** A fresh name for a temporary file in a directory of the store. */
export function temporaryName(dir: string, what: string): string {
  return join(dir, `${basename(what)}-${randomBytes(6).toString("hex")}`);
}
