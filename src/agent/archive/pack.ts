/** Makes an archive of files and trees of this host, as it is read. */
import { constants } from "node:fs";
import type { BigIntStats } from "node:fs";
import { lstat, open, readdir, readlink } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { VmsanError, messageOf } from "../../model/errors.ts";
import { encodeEnd, encodeEntry, padding } from "./pax.ts";
import type { ArchiveEntry, Attributes, Segment } from "./pax.ts";

const READ_SIZE = 256 << 10;
/** Files up to this length are read before their header is written: what is read is their length. */
const READ_FIRST = 1 << 20;
/** Longest file of which the file system does not say how long it is (as of /proc). */
const MAX_UNSAID = 64 << 20;
/** Pieces are joined until they have that length. */
const GATHER = 64 << 10;
/** Unit in which holes are looked for. */
const HOLE_UNIT = 4096;

/** What to pack under which name. */
export interface PackSource {
  /** Path on this host, as bytes or text. */
  path: string | Buffer;
  /** First component of the names in the archive. */
  name: Buffer;
}

/** What {@link pack} tells while it works. */
export interface PackOptions {
  /** Content bytes packed so far. */
  onProgress?: (bytes: number) => void;
  /** Whether to leave out a name, and all below it when it is a directory. */
  skip?: (name: Buffer, directory: boolean) => boolean;
  /** What was left out though nobody asked for it, and why. */
  onSkip?: (path: Buffer, why: string) => void;
  /** Extended attributes of files, in their order; without it none are packed. */
  attributesOf?: (paths: readonly Buffer[]) => Promise<readonly Attributes[]>;
}

const SLASH = Buffer.from("/");
/** Name of a tree whose entries have no directory in front. */
const HERE = Buffer.from(".");

/** Two parts of a path. */
export function joinBytes(dir: Buffer, name: Buffer): Buffer {
  return Buffer.concat([dir, SLASH, name]);
}

/** The kind of an entry; undefined for what is not archived. */
function typeOf(stat: BigIntStats): ArchiveEntry["type"] | undefined {
  if (stat.isFile()) return "file";
  if (stat.isDirectory()) return "dir";
  if (stat.isSymbolicLink()) return "symlink";
  return stat.isFIFO() ? "fifo" : undefined;
}

/** Where a file that takes less room than it is long has data. */
async function findSegments(handle: FileHandle, size: number): Promise<Segment[]> {
  const segments: Segment[] = [];
  const buffer = Buffer.allocUnsafe(READ_SIZE);
  const zeros = Buffer.alloc(HOLE_UNIT);
  for (let at = 0; at < size;) {
    const { bytesRead } = await handle.read(buffer, 0, Math.min(READ_SIZE, size - at), at);
    if (bytesRead === 0) break;
    for (let i = 0; i < bytesRead; i += HOLE_UNIT) {
      const unit = buffer.subarray(i, Math.min(i + HOLE_UNIT, bytesRead));
      if (unit.equals(zeros.subarray(0, unit.length))) continue;
      const last = segments.at(-1);
      if (last !== undefined && last.offset + last.length === at + i) last.length += unit.length;
      else segments.push({ offset: at + i, length: unit.length });
    }
    at += bytesRead;
  }
  // The last segment says how long the file is, for readers that look at nothing else.
  const last = segments.at(-1);
  if (last === undefined || last.offset + last.length < size)
    segments.push({ offset: size, length: 0 });
  return segments;
}

/** One archive being made. */
class Packer {
  private readonly options: PackOptions;
  private bytes = 0;
  /** Names of files with several links, by device and inode. */
  private readonly linked = new Map<string, Buffer>();

  constructor(options: PackOptions) {
    this.options = options;
  }

  /** An entry and everything below it. */
  async *add(path: Buffer, name: Buffer): AsyncGenerator<Buffer> {
    const [attributes] = (await this.options.attributesOf?.([path])) ?? [];
    yield* this.one(path, name, attributes);
  }

  private async *one(
    path: Buffer,
    name: Buffer,
    attributes: Attributes | undefined,
  ): AsyncGenerator<Buffer> {
    const stat = await lstat(path, { bigint: true });
    const type = typeOf(stat);
    if (this.options.skip?.(name, type === "dir") === true && !name.equals(HERE)) return;
    if (type === undefined) {
      this.options.onSkip?.(path, "sockets and devices are not copied");
      return;
    }
    const entry: ArchiveEntry = {
      name,
      type,
      mode: Number(stat.mode) & 0o7777,
      uid: Number(stat.uid),
      gid: Number(stat.gid),
      size: 0,
      mtimeNs: stat.mtimeNs,
      ...(attributes === undefined ? {} : { attributes }),
    };
    const key = `${stat.dev}:${stat.ino}`;
    const first = this.linked.get(key);
    if (type !== "dir" && stat.nlink > 1n) {
      if (first !== undefined) {
        yield encodeEntry({ ...entry, type: "hardlink", link: first });
        return;
      }
      this.linked.set(key, name);
    }
    if (type === "file") yield* this.file(path, entry, stat);
    else if (type === "symlink") {
      yield encodeEntry({ ...entry, link: await readlink(path, { encoding: "buffer" }) });
    } else yield encodeEntry(entry);
    if (type === "dir") yield* this.children(path, name);
  }

  private async *children(path: Buffer, name: Buffer): AsyncGenerator<Buffer> {
    const names = await readdir(path, { encoding: "buffer" });
    names.sort((a, b) => a.compare(b));
    const archived = name.equals(HERE) ? undefined : name;
    const paths = names.map((child) => joinBytes(path, child));
    const attributes = await this.options.attributesOf?.(paths);
    for (const [index, child] of names.entries()) {
      const childName = archived === undefined ? child : joinBytes(archived, child);
      yield* this.one(joinBytes(path, child), childName, attributes?.[index]);
    }
  }

  private async *file(
    path: Buffer,
    entry: ArchiveEntry,
    stat: BigIntStats,
  ): AsyncGenerator<Buffer> {
    // Not through a symlink that has taken the file's place since it was looked at, and
    // without waiting for a writer should it be a pipe by now.
    const handle = await open(
      path,
      constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK,
    );
    try {
      const now = await handle.stat({ bigint: true });
      if (!now.isFile() || now.ino !== stat.ino)
        throw new Error("it was replaced while it was read");
      const size = Number(now.size);
      const whole = size <= READ_FIRST ? await readWhole(handle, size) : undefined;
      const sparse = now.blocks * 512n < now.size && size > HOLE_UNIT;
      if (whole !== undefined && !(sparse && whole.length === size)) {
        yield encodeEntry({ ...entry, size: whole.length });
        yield* this.counted(whole);
        if (padding(whole.length) > 0) yield Buffer.alloc(padding(whole.length));
        return;
      }
      const segments = sparse ? await findSegments(handle, size) : undefined;
      yield encodeEntry({ ...entry, size }, segments);
      let stored = 0;
      for (const { offset, length } of segments ?? [{ offset: 0, length: size }]) {
        yield* this.content(handle, offset, length);
        stored += length;
      }
      if (padding(stored) > 0) yield Buffer.alloc(padding(stored));
    } finally {
      await handle.close();
    }
  }

  /** Exactly so many bytes. */
  private async *content(
    handle: FileHandle,
    offset: number,
    length: number,
  ): AsyncGenerator<Buffer> {
    for (let at = 0; at < length;) {
      const want = Math.min(READ_SIZE, length - at);
      const buffer = Buffer.allocUnsafe(want);
      const { bytesRead } = await handle.read(buffer, 0, want, offset + at);
      if (bytesRead === 0) throw new Error("it has become shorter while it was read");
      at += bytesRead;
      yield* this.counted(buffer.subarray(0, bytesRead));
    }
  }

  private *counted(bytes: Buffer): Generator<Buffer> {
    this.bytes += bytes.length;
    this.options.onProgress?.(this.bytes);
    yield bytes;
  }
}

/** A file to its end, whatever length it is said to have. */
async function readWhole(handle: FileHandle, said: number): Promise<Buffer> {
  const pieces: Buffer[] = [];
  let length = 0;
  const room = Math.max(4096, Math.min(said + 1, READ_SIZE));
  for (;;) {
    const buffer = Buffer.allocUnsafe(room);
    const { bytesRead } = await handle.read(buffer, 0, room, length);
    if (bytesRead === 0) return Buffer.concat(pieces);
    pieces.push(buffer.subarray(0, bytesRead));
    length += bytesRead;
    if (length > MAX_UNSAID) {
      throw new Error(`it goes on behind ${MAX_UNSAID} bytes, longer than it is said to be`);
    }
  }
}

/** Small pieces joined: a header, a short file and its padding are not worth a frame each. */
async function* gathered(pieces: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let held: Buffer[] = [];
  let bytes = 0;
  for await (const piece of pieces) {
    held.push(piece);
    bytes += piece.length;
    if (bytes < GATHER) continue;
    yield held.length === 1 ? piece : Buffer.concat(held);
    held = [];
    bytes = 0;
  }
  if (bytes > 0) yield Buffer.concat(held);
}

/**
 * The bytes of an archive of these files and trees, in pieces of 64 KiB and more.
 * @throws ERR_AGENT_UPLOAD for what cannot be read
 */
export function pack(
  sources: readonly PackSource[],
  options: PackOptions = {},
): AsyncGenerator<Buffer> {
  return gathered(packed(sources, options));
}

/** The same in the pieces that it is made of. */
async function* packed(
  sources: readonly PackSource[],
  options: PackOptions,
): AsyncGenerator<Buffer> {
  const packer = new Packer(options);
  try {
    for (const { path, name } of sources) yield* packer.add(Buffer.from(path), name);
  } catch (error) {
    if (error instanceof VmsanError) throw error;
    throw new VmsanError(
      {
        code: "ERR_AGENT_UPLOAD",
        message: "Cannot read what is to be uploaded",
        why: messageOf(error),
        fix: "Check that it exists and that you may read it.",
      },
      error,
    );
  }
  yield encodeEnd();
}
