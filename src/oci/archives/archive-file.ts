/** One archive file: opened, listed, its members read or copied into the store as blobs. */
import { createReadStream } from "node:fs";
import { open, stat } from "node:fs/promises";
import { posix } from "node:path";
import type { Digest, Platform } from "../../model/image.ts";
import { errnoOf } from "../../model/errors.ts";
import { PACKING_HEAD } from "../../util/packing/packing.ts";
import { packingOfArchive } from "../../util/packing/uncompressed.ts";
import type { ArchivePacking } from "../../util/packing/uncompressed.ts";
import { inflate, packingOf } from "../store/decompress.ts";
import { imageError } from "../errors.ts";
import { FileWriter, ingest } from "../store/ingest.ts";
import type { Lease } from "../store/leases.ts";
import { digestOf, temporaryName } from "../store/store.ts";
import type { ContentStore } from "../store/store.ts";
import { archiveError, cleanName, listTar } from "./tar.ts";
import type { Member } from "./tar.ts";

/** Largest JSON member read into memory, in bytes. */
export const JSON_LIMIT = 64 << 20;

/** What every reader of archives needs. */
export interface ArchiveContext {
  store: ContentStore;
  lease: Lease;
  platform: Platform;
  signal?: AbortSignal;
}

/** An open archive and its table of contents. */
export interface Archive {
  /** The file read, perhaps a decompressed copy. */
  path: string;
  /** What the user calls it. */
  label: string;
  members: Map<string, Member>;
}

/** Bytes of a file from one offset on. */
function readRange(path: string, offset: number, size: number): AsyncIterable<Uint8Array> {
  if (size === 0) return (async function* nothing() {})();
  return createReadStream(path, { start: offset, end: offset + size - 1, highWaterMark: 1 << 20 });
}

/** Follow links among members; archives of old `docker save` link equal layers. */
function findMember(archive: Archive, name: string): Member {
  let at = cleanName(name);
  let fromRoot = at;
  for (let hops = 0; hops < 16; hops += 1) {
    // Docker follows a link that leads nowhere from its own place from the root.
    const member = archive.members.get(at) ?? archive.members.get(fromRoot);
    if (member === undefined) break;
    if (member.type === "file") return member;
    if (member.type === "other") break;
    fromRoot = cleanName(posix.normalize(posix.join("/", member.target)));
    at = cleanName(
      member.type === "link"
        ? member.target
        : posix.normalize(posix.join(posix.dirname(at), member.target)),
    );
  }
  throw archiveError(archive.label, `It has no member ${JSON.stringify(name)}.`);
}

/** A member's content in memory. */
export async function readMember(archive: Archive, name: string, limit: number): Promise<Buffer> {
  const member = findMember(archive, name);
  if (member.size > limit) {
    throw archiveError(archive.label, `Its member ${name} has ${member.size} bytes.`);
  }
  const parts: Uint8Array[] = [];
  for await (const part of readRange(archive.path, member.offset, member.size)) parts.push(part);
  return Buffer.concat(parts);
}

/** Write a stream to a temporary file of the lease, decompressing it on the way. */
export async function spool(
  source: AsyncIterable<Uint8Array>,
  label: string,
  context: ArchiveContext,
): Promise<string> {
  const path = temporaryName(context.lease.dir, "archive");
  const handle = await open(path, "wx");
  try {
    const writer = new FileWriter(handle, 0);
    const iterator = source[Symbol.asyncIterator]();
    let head = Buffer.alloc(0);
    let ended = false;
    while (head.length < PACKING_HEAD && !ended) {
      const next = await iterator.next();
      if (next.done === true) ended = true;
      else head = Buffer.concat([head, next.value]);
    }
    const rest = (async function* all() {
      yield head;
      for (;;) {
        context.signal?.throwIfAborted();
        const next = await iterator.next();
        if (next.done === true) return;
        yield next.value;
      }
    })();
    await inflate(rest, packingOfArchive(head), (bytes) => writer.write(bytes), label);
    await writer.drain();
  } finally {
    await handle.close();
  }
  return path;
}

/** Open an archive file; a compressed one is decompressed to a temporary file first. */
export async function openArchive(
  path: string,
  label: string,
  context: ArchiveContext,
): Promise<Archive> {
  let plain = path;
  try {
    if ((await stat(path)).isDirectory()) throw archiveError(label, "It is a directory.");
    if (packingOf(path) !== "none") {
      plain = await spool(createReadStream(path), label, context);
    }
  } catch (error) {
    if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ENOTDIR") {
      throw imageError(
        "ERR_IMAGE_NOT_FOUND",
        `Cannot read the image archive ${path}`,
        "There is no such file.",
        "Check the path.",
        error,
      );
    }
    throw error;
  }
  const handle = await open(plain, "r");
  try {
    const { size } = await handle.stat();
    return { path: plain, label, members: await listTar(handle, size, label) };
  } finally {
    await handle.close();
  }
}

/** Copy a member into the store as a blob, unless it is there. @param packing taken off on the way */
export async function takeBlob(
  archive: Archive,
  name: string,
  expected: { digest?: Digest; size?: number },
  context: ArchiveContext,
  packing: ArchivePacking = "none",
): Promise<{ digest: Digest; size: number }> {
  const { store, lease, signal } = context;
  const member = findMember(archive, name);
  const { digest } = expected;
  if (digest !== undefined) {
    await lease.protect([digest]);
    const path = store.blobPath(digest);
    const size = await store.blobSize(digest);
    const whole = size !== undefined && (packing !== "none" || size === member.size);
    if (whole && (await store.isVerified(path, digest, signal)) !== undefined) {
      return { digest, size };
    }
    await store.discard(digest);
  }
  const source = readRange(archive.path, member.offset, member.size);
  return ingest(store, lease, source, expected, `${name} of ${archive.label}`, signal, packing);
}

/** How a member is packed. */
export async function packingOfMember(archive: Archive, name: string): Promise<ArchivePacking> {
  const member = findMember(archive, name);
  const head: Uint8Array[] = [];
  const size = Math.min(PACKING_HEAD, member.size);
  for await (const part of readRange(archive.path, member.offset, size)) head.push(part);
  return packingOfArchive(Buffer.concat(head));
}

/** Store bytes as a blob that the lease protects from the start. */
export async function protectBytes(
  bytes: Buffer,
  store: ContentStore,
  lease: Lease,
): Promise<Digest> {
  await lease.protect([digestOf(bytes)]);
  return store.putBytes(bytes);
}
