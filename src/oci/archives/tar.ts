/**
 * Image archives as tar files: their table of contents, and headers for writing one. The format itself is
 * read and written by layers/tar/.
 */
import { readSync } from "node:fs";
import type { FileHandle } from "node:fs/promises";
import { setImmediate as breathe } from "node:timers/promises";
import {
  encodeHeader,
  RECORD,
  TarReader,
  type ByteSource,
  type TarKind,
} from "../../layers/layers.ts";
import { VmsanError } from "../../model/errors.ts";
import { imageError } from "../errors.ts";

/** Most members in an image archive. */
const MEMBER_LIMIT = 100_000;
/** Most bytes of a member's long names and extended headers. */
const HEADER_LIMIT = 1 << 20;
/** Bytes read at once: a header, and what mostly stands behind it. */
const PIECE = 4096;
/** Members listed before others get their turn. */
const BURST = 1000;

/** A member of an archive. */
export interface Member {
  /** Without leading `./` and `/`. */
  name: string;
  type: "file" | "link" | "symlink" | "other";
  /** Target of a link. */
  target: string;
  /** Where its content begins in the file. */
  offset: number;
  /** Bytes of content. */
  size: number;
}

/** The error for an archive that is no tar archive or ends early. */
export function archiveError(path: string, why: string, cause?: unknown): Error {
  return imageError(
    "ERR_IMAGE_ARCHIVE",
    `Cannot read the image archive ${path}`,
    why,
    "Make it again, e.g. with `docker save`, `skopeo copy … oci-archive:FILE` or `vmsan image save`.",
    cause,
  );
}

/** The bytes of a file, piece by piece; contents are passed over without being read. */
class FileSource implements ByteSource {
  private readonly fd: number;
  private readonly piece = Buffer.alloc(PIECE);
  private position = 0;

  constructor(fd: number) {
    this.fd = fd;
  }

  next(): Buffer | undefined {
    const count = readSync(this.fd, this.piece, 0, PIECE, this.position);
    this.position += count;
    return count === 0 ? undefined : this.piece.subarray(0, count);
  }

  skip(bytes: number): void {
    this.position += bytes;
  }
}

/** The reader's byte strings as text. */
const utf8 = (name: string): string => Buffer.from(name, "latin1").toString("utf8");

const TYPES: Partial<Record<TarKind, Member["type"]>> = {
  file: "file",
  hardlink: "link",
  symlink: "symlink",
};

/** Strip what means the archive's own root. */
export function cleanName(name: string): string {
  return name.replace(/^(?:\.?\/)+/, "").replace(/\/+$/, "");
}

/**
 * List an archive's members by reading only its headers. Of equal names the last counts.
 * @param size of the file, in bytes
 */
export async function listTar(
  handle: FileHandle,
  size: number,
  path: string,
): Promise<Map<string, Member>> {
  const members = new Map<string, Member>();
  const reader = new TarReader(new FileSource(handle.fd), { headerBytes: HEADER_LIMIT });
  try {
    for (let entry = reader.next(); entry !== undefined; entry = reader.next()) {
      const { offset, storedBytes } = reader;
      if (offset + storedBytes > size) {
        throw archiveError(
          path,
          `It is cut off: its member at byte ${offset} goes beyond the end.`,
        );
      }
      const name = cleanName(utf8(entry.path));
      // What is stored of a sparse file is not its content.
      const type = reader.isSparse ? "other" : (TYPES[entry.kind] ?? "other");
      const stored = type === "file" ? storedBytes : 0;
      members.set(name, { name, type, target: utf8(entry.link), offset, size: stored });
      if (members.size > MEMBER_LIMIT) throw archiveError(path, "It has too many members.");
      if (members.size % BURST === 0) await breathe();
    }
  } catch (error) {
    if (!(error instanceof VmsanError) || !error.code.startsWith("ERR_LAYER_TAR")) throw error;
    const why =
      reader.offset <= RECORD
        ? "It is not a tar archive."
        : `${error.why} (Before byte ${reader.offset}.)`;
    throw archiveError(path, why, error);
  }
  if (members.size === 0) throw archiveError(path, "It is empty.");
  return members;
}

/** A header of a regular file, owned by root, of time 0: same content, same archive. */
export function tarHeader(name: string, size: number): Buffer {
  return encodeHeader({
    kind: "file",
    path: name,
    link: "",
    mode: 0o644,
    uid: 0,
    gid: 0,
    size,
    mtime: 0,
    mtimeNsec: 0,
    major: 0,
    minor: 0,
    xattrs: undefined,
  });
}
