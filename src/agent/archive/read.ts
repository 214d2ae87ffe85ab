/** Reads an archive as it comes, entry by entry; the guest that wrote it is not trusted. */
import {
  BLOCK,
  MAX_NAME,
  MAX_SEGMENTS,
  archiveError,
  checkPaxSize,
  decodeEntry,
  decodeHeader,
  decodePax,
  padding,
} from "./pax.ts";
import type { ArchiveEntry, Segment } from "./pax.ts";

/** Takes exact numbers of bytes from a stream of chunks. */
class ByteReader {
  private readonly source: AsyncIterator<Buffer>;
  private chunk: Buffer = Buffer.alloc(0);

  constructor(source: AsyncIterable<Buffer>) {
    this.source = source[Symbol.asyncIterator]();
  }

  /** At most `limit` bytes; undefined at the end. */
  async some(limit: number): Promise<Buffer | undefined> {
    if (await this.atEnd()) return undefined;
    const bytes = this.chunk.subarray(0, limit);
    this.chunk = this.chunk.subarray(bytes.length);
    return bytes;
  }

  /** Exactly so many bytes, as pieces. */
  async *pieces(length: number): AsyncGenerator<Buffer> {
    for (let left = length; left > 0;) {
      const bytes = await this.some(left);
      if (bytes === undefined) throw archiveError("It ends in the middle of an entry.");
      left -= bytes.length;
      yield bytes;
    }
  }

  /** Exactly so many bytes; undefined when the stream ends right here. */
  async exact(length: number): Promise<Buffer | undefined> {
    const pieces: Buffer[] = [];
    for (let left = length; left > 0;) {
      const bytes = await this.some(left);
      if (bytes === undefined) {
        if (left === length) return undefined;
        throw archiveError("It ends in the middle of a record.");
      }
      left -= bytes.length;
      pieces.push(bytes);
    }
    const [first] = pieces;
    return pieces.length === 1 && first !== undefined ? first : Buffer.concat(pieces);
  }

  /** Whether the stream has ended. */
  async atEnd(): Promise<boolean> {
    while (this.chunk.length === 0) {
      const next = await this.source.next();
      if (next.done === true) return true;
      this.chunk = next.value;
    }
    return false;
  }

  /** Throw bytes away. */
  async skip(length: number): Promise<void> {
    for await (const _ of this.pieces(length));
  }
}

/** A piece of a file's content, with its place in it. */
export interface ContentPiece {
  offset: number;
  bytes: Buffer;
}

/** An entry; `content` must be read to its end before the next entry is asked for. */
export interface ReadEntry {
  entry: ArchiveEntry;
  content: AsyncGenerator<ContentPiece>;
}

/** A name without the `./` that GNU tar puts in front. */
function withoutHere(name: Buffer): Buffer {
  let at = 0;
  while (name[at] === 0x2e && name[at + 1] === 0x2f) at += 2;
  return at > 0 && at === name.length ? Buffer.from(".") : name.subarray(at);
}

/** Refuse names that a path must not be made of. */
function checkName(name: Buffer): void {
  const text = name.toString("latin1");
  if (text === "" || name.length > MAX_NAME)
    throw archiveError("A name that is empty or too long.", name);
  if (text.includes("\0")) throw archiveError("A name with a NUL byte.", name);
  if (text === ".") return;
  for (const part of text.split("/")) {
    if (part === "" || part === "." || part === "..") {
      throw archiveError(
        "A name that is absolute or has '.', '..' or nothing between slashes.",
        name,
      );
    }
    if (part.length > 255) throw archiveError("A name with a part of more than 255 bytes.", name);
  }
}

/** The map of a sparse file: where its data goes. Takes its bytes, padding included. */
async function readMap(
  reader: ByteReader,
  stored: number,
  size: number,
): Promise<{ segments: Segment[]; left: number }> {
  let text = "";
  let taken = 0;
  const numbers: number[] = [];
  let needed = 1;
  while (numbers.length < needed) {
    const block = taken + BLOCK <= stored ? await reader.exact(BLOCK) : undefined;
    if (block === undefined) throw archiveError("A sparse file's map is cut off.");
    taken += BLOCK;
    text += block.toString("latin1");
    const lines = text.split("\n");
    text = lines.pop() ?? "";
    for (const line of lines) {
      if (numbers.length >= needed) break;
      if (!/^\d{1,16}$/.test(line)) throw archiveError("A sparse file's map is broken.");
      numbers.push(Number(line));
      if (numbers.length === 1) {
        const count = numbers[0] ?? 0;
        if (count > MAX_SEGMENTS) throw archiveError(`A sparse file of ${count} segments.`);
        needed = 1 + 2 * count;
      }
    }
    if (text.length > 32 && numbers.length < needed && !text.includes("\n") && /[^\d]/.test(text)) {
      throw archiveError("A sparse file's map is broken.");
    }
  }
  const segments: Segment[] = [];
  let end = 0;
  let total = 0;
  for (let i = 1; i < needed; i += 2) {
    const segment = { offset: numbers[i] ?? 0, length: numbers[i + 1] ?? 0 };
    if (segment.offset < end || segment.offset + segment.length > size) {
      throw archiveError("A sparse file's segments overlap or lie outside of it.");
    }
    end = segment.offset + segment.length;
    total += segment.length;
    segments.push(segment);
  }
  if (taken + total !== stored) throw archiveError("A sparse file's map and size do not agree.");
  return { segments, left: total };
}

/**
 * All entries of an archive, in order. Reads the stream to its end.
 * @param openEnd it may end behind the last entry's content, without padding and end mark
 */
export async function* readArchive(
  source: AsyncIterable<Buffer>,
  { openEnd = false }: { openEnd?: boolean } = {},
): AsyncGenerator<ReadEntry> {
  const reader = new ByteReader(source);
  let pax = new Map<string, Buffer>();
  for (;;) {
    const block = await reader.exact(BLOCK);
    if (block === undefined && openEnd && pax.size === 0) return;
    if (block === undefined) throw archiveError("It has no end mark: it was cut off.");
    const header = decodeHeader(block);
    if (header === undefined) break;
    if (header.flag === "x" || header.flag === "g") {
      checkPaxSize(header.size);
      const data = (await reader.exact(header.size)) ?? Buffer.alloc(0);
      await reader.skip(padding(header.size));
      // A global header says nothing that is needed here.
      if (header.flag === "x") for (const [key, value] of decodePax(data)) pax.set(key, value);
      continue;
    }
    if (header.flag === "L" || header.flag === "K") {
      // GNU tar's long names: as content of an entry of their own, with a NUL behind.
      checkPaxSize(header.size);
      const data = (await reader.exact(header.size)) ?? Buffer.alloc(0);
      await reader.skip(padding(header.size));
      const end = data.indexOf(0);
      const key = header.flag === "L" ? "path" : "linkpath";
      pax.set(key, end < 0 ? data : data.subarray(0, end));
      continue;
    }
    const { entry, stored, sparse } = decodeEntry(header, pax);
    pax = new Map();
    entry.name = withoutHere(entry.name);
    if (entry.type === "hardlink" && entry.link !== undefined) entry.link = withoutHere(entry.link);
    checkName(entry.name);
    if (entry.type === "hardlink") checkName(entry.link ?? Buffer.alloc(0));
    if (entry.type === "symlink" && (entry.link?.length ?? 0) > MAX_NAME) {
      throw archiveError("A symlink's target is too long.", entry.name);
    }
    const content = async function* (): AsyncGenerator<ContentPiece> {
      const map = sparse
        ? await readMap(reader, stored, entry.size)
        : { segments: [{ offset: 0, length: stored }], left: stored };
      for (const { offset, length } of map.segments) {
        let at = offset;
        for await (const bytes of reader.pieces(length)) {
          yield { offset: at, bytes };
          at += bytes.length;
        }
      }
      if (openEnd && (await reader.atEnd())) return;
      await reader.skip(padding(stored));
    };
    const pieces = content();
    yield { entry, content: pieces };
    // What the user has not read is thrown away.
    while ((await pieces.next()).done !== true);
  }
  // The end is two records of zeros and any padding: all of it is taken, so that the
  // stream's own end is seen.
  while ((await reader.some(1 << 20)) !== undefined);
}
