/** A context that comes as a tar archive: kept in a file while it is built, since its Dockerfile may lie at its end. */
import { createReadStream, createWriteStream } from "node:fs";
import { mkdtemp, open, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, posix } from "node:path";
import { pipeline } from "node:stream/promises";
import { BLOCK, padding } from "../../agent/archive/pax.ts";
import { readArchive } from "../../agent/archive/read.ts";
import { VmsanError, asVmsanError } from "../../model/errors.ts";
import { freeBytes } from "../../util/files/free-bytes.ts";
import { formatBytes } from "../../util/units.ts";
import { packingOfArchive, uncompressed } from "../../util/packing/uncompressed.ts";

/** Most bytes of a Dockerfile. */
const MAX_DOCKERFILE = 4 << 20;

/** Bytes after which the room that is left is looked at again. */
const LOOK_AT = 16 << 20;

/**
 * The same bytes, as long as they take no more room than they leave to others: what a few bytes of gzip
 * become may have no end.
 * @param freeIn bytes that are free in a directory
 * @throws ERR_BUILD_CONTEXT
 */
async function* leavingRoom(
  source: AsyncIterable<Buffer>,
  dir: string,
  freeIn: (dir: string) => Promise<number>,
): AsyncGenerator<Buffer> {
  let bytes = 0;
  let next = LOOK_AT;
  for await (const chunk of source) {
    bytes += chunk.length;
    if (bytes >= next) {
      const free = await freeIn(dir);
      if (bytes > free) throw tooLarge(bytes, free, dir);
      next = bytes + LOOK_AT;
    }
    yield chunk;
  }
}

/** The error for a context that has no place here. */
function tooLarge(bytes: number, free: number, dir: string): VmsanError {
  return new VmsanError({
    code: "ERR_BUILD_CONTEXT",
    message: "Cannot keep the archive of the context",
    why: `Of it, uncompressed, ${formatBytes(bytes)} have come so far, and ${formatBytes(free)} are left in ${dir}; it may take half of that place.`,
    fix: "Give the context as a directory, which is not kept; or make room there, or name another place with TMPDIR.",
  });
}

/** An archive in a file of its own. */
export interface KeptArchive {
  path: string;
  remove: () => Promise<void>;
}

/** The last bytes of an archive that has its end. */
const END = Buffer.alloc(BLOCK);

/** Give an archive its end. Docker's command line leaves it out where it adds a Dockerfile from elsewhere; Go's readers do not miss it. */
async function closeArchive(path: string): Promise<void> {
  await using file = await open(path, "r+");
  const { size } = await file.stat();
  const last = await file.read(Buffer.alloc(BLOCK), 0, BLOCK, Math.max(0, size - BLOCK));
  if (size % BLOCK === 0 && last.buffer.equals(END) && size > 0) return;
  try {
    for await (const _ of readArchive(createReadStream(path), { openEnd: true }));
  } catch (error) {
    throw new VmsanError(
      {
        code: "ERR_BUILD_CONTEXT",
        message: "Cannot read the archive of the context",
        why: asVmsanError(error, "").why ?? "",
        fix: "Send it again.",
      },
      error,
    );
  }
  await file.write(Buffer.alloc(padding(size) + 2 * BLOCK), 0, undefined, size);
}

/**
 * Keep an archive, uncompressed and with its end, in a temporary file.
 * @param near the directory that it is made in
 * @param freeIn bytes that are free in a directory
 * @throws ERR_VALIDATION_ARCHIVE for what is damaged; ERR_BUILD_CONTEXT when it takes more than half of the room that there is; ERR_DISK_FULL
 */
export async function keepArchive(
  source: AsyncIterable<Buffer>,
  { near = tmpdir(), freeIn = freeBytes } = {},
): Promise<KeptArchive> {
  const dir = await mkdtemp(join(near, "vmsan-build-"));
  const remove = async (): Promise<void> => rm(dir, { recursive: true, force: true });
  const path = join(dir, "context.tar");
  try {
    const plain = leavingRoom(uncompressed(source), dir, freeIn);
    await pipeline(plain, createWriteStream(path, { mode: 0o600 }));
    await closeArchive(path);
  } catch (error) {
    await remove();
    throw asVmsanError(error, "Cannot keep the archive of the context", "ERR_BUILD_CONTEXT");
  }
  return { path, remove };
}

/**
 * The text of the first of these files that an archive has.
 * @param names in the order of preference
 */
export async function textIn(
  archive: string,
  names: readonly string[],
): Promise<string | undefined> {
  const wanted = names.map((name) => posix.normalize(name).replace(/^\/+/, ""));
  const found = new Map<string, string>();
  for await (const { entry, content } of readArchive(createReadStream(archive))) {
    const name = posix.normalize(entry.name.toString()).replace(/^\/+/, "");
    if (entry.type !== "file" || !wanted.includes(name) || entry.size > MAX_DOCKERFILE) continue;
    const parts: Buffer[] = [];
    for await (const { bytes } of content) parts.push(Buffer.from(bytes));
    found.set(name, Buffer.concat(parts).toString("utf8"));
  }
  const first = wanted.find((name) => found.has(name));
  return first === undefined ? undefined : found.get(first);
}

/** Whether bytes are the beginning of an archive, plain or compressed, rather than of a text. */
export function isArchive(head: Buffer): boolean {
  return packingOfArchive(head) !== "none" || head.toString("latin1", 257, 262) === "ustar";
}
