/** Bytes from anywhere become blobs of the store: written aside, synced, verified, renamed. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { open, rm } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import type { Digest } from "../../model/image.ts";
import { inflate } from "./decompress.ts";
import type { ArchivePacking } from "../../util/packing/uncompressed.ts";
import { storeError } from "../errors.ts";
import type { Lease } from "./leases.ts";
import { blobCorrupt, temporaryName } from "./store.ts";
import type { ContentStore } from "./store.ts";

/** Bytes gathered before a write. */
const BATCH = 1 << 20;

/**
 * Writes to a file while the next bytes come: at most one write under way and one batch
 * waiting, so that memory stays at a few MiB whatever the size.
 */
export class FileWriter {
  readonly #handle: FileHandle;
  #position: number;
  #waiting: Uint8Array[] = [];
  #waitingBytes = 0;
  #writing: Promise<unknown> = Promise.resolve();
  #failure: unknown;

  /** @param position where the next byte goes */
  constructor(handle: FileHandle, position: number) {
    this.#handle = handle;
    this.#position = position;
  }

  /** Bytes written or waiting, from the file's start. */
  get position(): number {
    return this.#position + this.#waitingBytes;
  }

  /** Take bytes, which must not change any more. A promise asks to wait. */
  write(bytes: Uint8Array): Promise<void> | undefined {
    this.#waiting.push(bytes);
    this.#waitingBytes += bytes.length;
    return this.#waitingBytes < BATCH ? undefined : this.#flush();
  }

  /** Wait for the write under way, then begin the next. */
  async #flush(): Promise<void> {
    await this.#writing;
    if (this.#failure !== undefined) throw this.#failure;
    const batch = this.#waiting;
    if (batch.length === 0) return;
    const at = this.#position;
    this.#position += this.#waitingBytes;
    this.#waiting = [];
    this.#waitingBytes = 0;
    this.#writing = this.#writeAll(batch, at).catch((error: unknown) => {
      this.#failure = error;
    });
  }

  /** writev may write less than asked for. */
  async #writeAll(batch: Uint8Array[], at: number): Promise<void> {
    let rest = batch;
    let position = at;
    while (rest.length > 0) {
      const { bytesWritten } = await this.#handle.writev(rest, position);
      position += bytesWritten;
      let skip = bytesWritten;
      rest = rest.flatMap((bytes) => {
        const taken = Math.min(skip, bytes.length);
        skip -= taken;
        return taken === bytes.length ? [] : [bytes.subarray(taken)];
      });
    }
  }

  /** Write everything that waits. */
  async drain(): Promise<void> {
    await this.#flush();
    await this.#writing;
    if (this.#failure !== undefined) throw this.#failure;
  }
}

/** What is known of content before it comes. */
export interface Expected {
  digest?: Digest;
  /** Bytes. */
  size?: number;
}

/** A blob of the store. */
export interface StoredBlob {
  digest: Digest;
  /** Bytes. */
  size: number;
}

/**
 * Store a stream as a blob, protected by the lease.
 * Throws ERR_IMAGE_BLOB_CORRUPT when it is not what was expected.
 * @param what for messages, e.g. `layer 3 of app.tar`
 * @param packing how the source is compressed; what is stored and expected is not
 */
export async function ingest(
  store: ContentStore,
  lease: Lease,
  source: AsyncIterable<Uint8Array>,
  expected: Expected,
  what: string,
  signal?: AbortSignal,
  packing: ArchivePacking = "none",
): Promise<StoredBlob> {
  const file = temporaryName(lease.dir, "blob");
  const hash = createHash("sha256");
  let size = 0;
  try {
    const handle = await open(file, "wx", 0o644);
    try {
      const writer = new FileWriter(handle, 0);
      const take = async (bytes: Uint8Array): Promise<void> => {
        signal?.throwIfAborted();
        hash.update(bytes);
        size += bytes.length;
        if (expected.size !== undefined && size > expected.size) {
          const digest = expected.digest ?? `sha256:${hash.digest("hex")}`;
          throw blobCorrupt(digest, what, `It has more than ${expected.size} bytes.`);
        }
        await writer.write(bytes);
      };
      await inflate(source, packing, take, what);
      await writer.drain();
      await handle.datasync();
    } finally {
      await handle.close();
    }
    const digest: Digest = `sha256:${hash.digest("hex")}`;
    if (expected.size !== undefined && size !== expected.size) {
      const short = `It has ${size} bytes instead of ${expected.size}.`;
      throw blobCorrupt(expected.digest ?? digest, what, short);
    }
    if (expected.digest !== undefined && expected.digest !== digest) {
      throw blobCorrupt(expected.digest, what, `Its content is ${digest}.`);
    }
    await lease.protect([digest]);
    if ((await store.blobSize(digest)) === size) await rm(file);
    else await store.publish(file, digest);
    return { digest, size };
  } catch (error) {
    await rm(file, { force: true });
    throw storeError(error, `Cannot store ${what}`, store.dir);
  }
}

/** Digest of a file's uncompressed content. */
export async function findDiffId(
  path: string,
  packing: ArchivePacking,
  signal?: AbortSignal,
): Promise<Digest> {
  const hash = createHash("sha256");
  const source = createReadStream(path, {
    highWaterMark: 1 << 18,
    ...(signal === undefined ? {} : { signal }),
  });
  await inflate(source, packing, (bytes) => void hash.update(bytes), path);
  return `sha256:${hash.digest("hex")}`;
}
