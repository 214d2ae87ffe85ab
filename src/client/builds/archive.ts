/** A context that comes as a tar archive: kept in a file while it is built, since its Dockerfile may lie at its end. */
import { createReadStream, createWriteStream } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, posix } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { readArchive } from "../../agent/archive/read.ts";
import { isCompressed, uncompressed } from "../../util/flow/uncompressed.ts";

/** Most bytes of a Dockerfile. */
const MAX_DOCKERFILE = 4 << 20;

/** An archive in a file of its own. */
export interface KeptArchive {
  path: string;
  remove: () => Promise<void>;
}

/**
 * Keep an archive, uncompressed, in a temporary file.
 * @param refuse makes the error for one that is compressed in an unknown way
 */
export async function keepArchive(
  source: AsyncIterable<Buffer>,
  refuse: () => Error,
): Promise<KeptArchive> {
  const dir = await mkdtemp(join(tmpdir(), "vmsan-build-"));
  const remove = async (): Promise<void> => rm(dir, { recursive: true, force: true });
  const path = join(dir, "context.tar");
  try {
    const plain = Readable.from(uncompressed(source, refuse), { objectMode: false });
    await pipeline(plain, createWriteStream(path, { mode: 0o600 }));
  } catch (error) {
    await remove();
    throw error;
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
  return isCompressed(head) || head.toString("latin1", 257, 262) === "ustar";
}
