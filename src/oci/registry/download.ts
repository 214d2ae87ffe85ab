/**
 * One blob from a registry into the store: continued where an earlier try or process
 * stopped, digested as it comes, bounded by the descriptor, fetched once among all processes.
 */
import { createHash } from "node:crypto";
import type { Hash } from "node:crypto";
import {
  closeSync,
  constants,
  fdatasync,
  fstatSync,
  ftruncateSync,
  openSync,
  read,
  rmSync,
} from "node:fs";
import { promisify } from "node:util";
import type { Digest, LayerFollower } from "../../model/image.ts";
import type { ProgressSink } from "../../model/progress.ts";
import type { Descriptor } from "../../schema/oci.ts";
import { codingsOf } from "../http/coding.ts";
import { BlockWriter } from "../http/blocks.ts";
import { storeError } from "../errors.ts";
import { PullFailure, safeUrl } from "../http/failure.ts";
import { Retry } from "./retry.ts";
import type { RetryLimits } from "./retry.ts";
import type { BlobServer } from "./session.ts";
import { hexOf } from "../store/store.ts";
import type { ContentStore } from "../store/store.ts";
import type { Answer } from "../http/transport.ts";

/** Bytes of progress after which earlier failures are forgiven. */
const FORGIVE = 1 << 20;
/** Bytes after which the kernel is told to begin writing to the disk. */
const SYNC_EVERY = 64 << 20;
/** Milliseconds between two progress events of a layer. */
const REPORT_EVERY = 100;

const readAside = promisify(read);
const syncAside = promisify(fdatasync);

/** A blob as progress names it: the first twelve digits. */
export function shortDigest(digest: Digest): string {
  return hexOf(digest).slice(0, 12);
}

/** A server that may not have a blob, or send it wrong, or hardly at all. */
export interface BlobPeer extends BlobServer {
  /** It has done so: it is not asked for others. */
  leave(): void;
}

/** What a download needs. */
export interface DownloadContext {
  store: ContentStore;
  /** Servers that have the blob, asked in turn. */
  sessions: readonly BlobServer[];
  /** One that is asked before them, and once alone: whatever it does, they make it good. */
  peer?: BlobPeer;
  limits: RetryLimits;
  onProgress?: ProgressSink;
  signal?: AbortSignal;
  /** Told what is in the files. */
  following?: LayerFollower;
}

/** A partial file with the state of its digest. */
interface Partial {
  /** File descriptor. */
  fd: number;
  hash: Hash;
  /** Bytes that are in the file and in the hash. */
  size: number;
  /** So many bytes are in the file. */
  onWritten: (end: number) => void;
  /** What was in the file is thrown away. */
  onLost: () => void;
}

/** Digest what an earlier try left, at most `limit` bytes. */
async function rehash(
  fd: number,
  limit: number,
  signal?: AbortSignal,
): Promise<Pick<Partial, "hash" | "size">> {
  const hash = createHash("sha256");
  const { size: present } = fstatSync(fd);
  if (present === 0) return { hash, size: 0 };
  if (present > limit) {
    // Longer than the blob: not its beginning.
    ftruncateSync(fd);
    return { hash, size: 0 };
  }
  const buffer = Buffer.allocUnsafe(1 << 20);
  let size = 0;
  for (;;) {
    signal?.throwIfAborted();
    const { bytesRead } = await readAside(fd, buffer, 0, buffer.length, size);
    if (bytesRead === 0) return { hash, size };
    hash.update(buffer.subarray(0, bytesRead));
    size += bytesRead;
  }
}

/** Throw away what a partial file holds. */
function restart(partial: Partial): void {
  partial.onLost();
  ftruncateSync(partial.fd);
  partial.hash = createHash("sha256");
  partial.size = 0;
}

/** The error for a body that is not what the manifest announced. */
function wrongContent(descriptor: Descriptor, url: URL, why: string): PullFailure {
  return new PullFailure(
    {
      code: "ERR_IMAGE_DIGEST",
      message: `Cannot use what ${safeUrl(url)} sends`,
      why: `${why} Expected ${descriptor.size} bytes with ${descriptor.digest}.`,
      fix: "Pull again; if it stays so, the registry or something on the way to it changes the content.",
    },
    false,
  );
}

/** Whether a 206 answer begins where it was asked to. */
function rangeStart(answer: Answer): number | undefined {
  const match = /^bytes (\d+)-/.exec(answer.headers["content-range"] ?? "");
  return match === null ? undefined : Number(match[1]);
}

/**
 * The codings that a blob has on the way, though none was asked for. Stores that name the blob's
 * own compression as the body's tell by the length that it is the blob as it is.
 * @param size bytes that are to come
 */
function codingsOfBlob(answer: Answer, size: number): string[] {
  const codings = codingsOf(answer.headers["content-encoding"]);
  return Number(answer.headers["content-length"]) === size ? [] : codings;
}

/** Ask for the rest of a blob; a server that does not know ranges sends all of it again. */
async function requestRest(
  session: BlobServer,
  descriptor: Descriptor,
  partial: Partial,
  signal?: AbortSignal,
): Promise<Answer> {
  const options = {
    headers: partial.size === 0 ? {} : { range: `bytes=${partial.size}-` },
    ...(signal === undefined ? {} : { signal }),
  };
  let answer: Answer;
  try {
    answer = await session.get(`blobs/${descriptor.digest}`, options);
  } catch (error) {
    const unusable = error instanceof PullFailure && error.details?.["status"] === 416;
    if (!unusable) throw error;
    restart(partial);
    return requestRest(session, descriptor, partial, signal);
  }
  if (partial.size > 0 && codingsOfBlob(answer, descriptor.size - partial.size).length > 0) {
    // A range of what is compressed on the way is no range of the blob.
    answer.discard();
    restart(partial);
    return requestRest(session, descriptor, partial, signal);
  }
  const resumed = answer.status === 206 && rangeStart(answer) === partial.size;
  if (!resumed && partial.size > 0) restart(partial);
  if (answer.status === 206 && !resumed && rangeStart(answer) !== 0) {
    answer.discard();
    throw wrongContent(descriptor, answer.url, "It sends another range than it was asked for.");
  }
  return answer;
}

/** Receive one answer's body into the partial file; what came stays there if it breaks off. */
async function receive(
  session: BlobServer,
  descriptor: Descriptor,
  partial: Partial,
  onBytes: (size: number) => void,
  signal?: AbortSignal,
): Promise<URL> {
  const answer = await requestRest(session, descriptor, partial, signal);
  let syncedAt = partial.size;
  let syncing: Promise<void> = Promise.resolve();
  const { fd, size: position } = partial;
  const take = (bytes: Buffer): void => {
    if (partial.size + bytes.length > descriptor.size) {
      throw wrongContent(descriptor, answer.url, "It sends more than was announced.");
    }
    partial.hash.update(bytes);
    partial.size += bytes.length;
    onBytes(partial.size);
    if (partial.size - syncedAt >= SYNC_EVERY) {
      syncedAt = partial.size;
      // The kernel tells an error once: it must be kept until somebody waits for it.
      syncing = syncing.then(async () => syncAside(fd));
      syncing.catch(() => undefined);
    }
  };
  const expected = descriptor.size - position;
  const writer = new BlockWriter(fd, position, expected, take, partial.onWritten);
  try {
    const codings = codingsOfBlob(answer, expected);
    if (codings.length === 0) await answer.receive(writer, signal);
    else await answer.receiveDecoded(writer, codings, signal);
  } finally {
    // Also after a failure: the file must hold what the hash holds, to go on from there, and
    // whoever closes it must not do so while something is written or synced.
    try {
      await writer.finish();
    } finally {
      await syncing;
    }
  }
  return answer.url;
}

/** Fetch until the blob is whole, trying again as often as the limits allow. */
async function fetchWhole(
  descriptor: Descriptor,
  partial: Partial,
  context: DownloadContext,
  report: (size: number) => void,
): Promise<void> {
  const { sessions, peer, limits, signal, onProgress } = context;
  const once = peer === undefined ? [] : [peer];
  const servers = once.length + sessions.length;
  const retry = new Retry(limits, signal);
  let credited = partial.size;
  let mismatches = 0;
  const onBytes = (size: number): void => {
    if (size - credited >= FORGIVE) {
      credited = size;
      retry.progress();
    }
    report(size);
  };
  for (let turn = 0; ; turn += 1) {
    const session = once[turn] ?? sessions[(turn - once.length) % sessions.length];
    if (session === undefined) throw new TypeError("No server to fetch from");
    try {
      let url = session.endpoint.bases[0] ?? new URL("https://localhost");
      if (partial.size < descriptor.size || descriptor.size === 0) {
        url = await receive(session, descriptor, partial, onBytes, signal);
      }
      if (partial.size < descriptor.size) {
        throw new PullFailure(
          {
            code: "ERR_IMAGE_NETWORK",
            message: `Cannot get all of ${safeUrl(url)}`,
            why: `It ended after ${partial.size} of ${descriptor.size} bytes.`,
            fix: "Pull again; what came so far is kept.",
          },
          true,
        );
      }
      const digest = partial.hash.copy().digest("hex");
      if (digest === hexOf(descriptor.digest)) return;
      mismatches += 1;
      restart(partial);
      credited = 0;
      const wrong = wrongContent(descriptor, url, `The content is sha256:${digest}.`);
      // Once more from the start: a power cut may have damaged what an earlier pull left.
      if (mismatches > 1) throw wrong;
      throw new PullFailure(wrong.toJSON(), true);
    } catch (error) {
      credited = Math.min(credited, partial.size);
      if (session === peer && error instanceof PullFailure) {
        // Not the registry's failure: it is asked at once, and has all its tries.
        signal?.throwIfAborted();
        peer.leave();
        continue;
      }
      const elsewhere = turn + 1 < servers;
      const mayMove = error instanceof PullFailure && !error.retry && elsewhere;
      const known = mayMove ? new PullFailure(error.toJSON(), true, undefined, error) : error;
      await retry.wait(known, (why, ms) => {
        onProgress?.({
          phase: "pull",
          item: shortDigest(descriptor.digest),
          message: `${why} Trying again in ${(ms / 1000).toFixed(1)} s from byte ${partial.size}.`,
        });
      });
    }
  }
}

/** Progress events of one blob, not more than ten a second. */
function reporter(descriptor: Descriptor, onProgress?: ProgressSink): (size: number) => void {
  if (onProgress === undefined) return () => undefined;
  const item = shortDigest(descriptor.digest);
  let last = 0;
  return (size) => {
    const now = performance.now();
    if (size < descriptor.size && now - last < REPORT_EVERY) return;
    last = now;
    onProgress({ phase: "pull", item, done: size, total: descriptor.size, unit: "bytes" });
  };
}

/**
 * Make a blob present in the store. Whoever else fetches it at the same time, in this or
 * another process, waits and finds it there. The caller's lease already protects it.
 */
export async function downloadBlob(
  descriptor: Descriptor,
  context: DownloadContext,
): Promise<void> {
  const { store, signal, following } = context;
  const { digest } = descriptor;
  const report = reporter(descriptor, context.onProgress);
  const arrived = (size: number): void => following?.arrived(digest, size);
  const whole = (): void => {
    arrived(descriptor.size);
    report(descriptor.size);
  };
  const present = async (): Promise<boolean> => {
    if ((await store.blobSize(digest)) !== descriptor.size) return false;
    return (await store.isVerified(store.blobPath(digest), digest, signal)) !== undefined;
  };
  if (await present()) return whole();
  const held = await store.lockBlob(digest, signal);
  try {
    if (await present()) return whole();
    const path = store.partialPath(digest);
    const fd = openSync(path, constants.O_RDWR | constants.O_CREAT, 0o644);
    try {
      const left = await rehash(fd, descriptor.size, signal);
      arrived(left.size);
      const partial = { ...left, fd, onWritten: arrived, onLost: () => following?.lost() };
      await fetchWhole(descriptor, partial, context, report);
      await syncAside(fd);
    } finally {
      closeSync(fd);
    }
    await store.publish(path, digest);
  } catch (error) {
    if (error instanceof PullFailure && error.code === "ERR_IMAGE_DIGEST") {
      rmSync(store.partialPath(digest), { force: true });
    }
    throw storeError(error, `Cannot store ${digest}`, store.dir);
  } finally {
    held.release();
  }
}
