/** Changes as a layer of an image: a tar archive with whiteouts (image-spec, layer.md), as it is made. */
import type { Ext4Reader, FoundInode } from "../ext4/ext4.ts";
import { END_OF_ARCHIVE, encodeHeader, padTo } from "../layers/layers.ts";
import type { TarEntry, TarKind } from "../layers/layers.ts";
import { VmsanError } from "../model/errors.ts";
import { damagedDisk } from "./disk.ts";
import type { Change } from "./overlay.ts";

/** What a layer calls a name that is gone, and a directory of which nothing shows. */
const WHITEOUT = ".wh.";
const OPAQUE = ".wh..wh..opq";
/** Changes between two turns of the event loop. */
const BREATH = 256;

/**
 * One entry of an archive: its header, a file's content, what fills the last block.
 * @param link the path in the archive of the same inode, if that is there already
 */
export function* entryBytes(
  path: string,
  inode: FoundInode,
  kind: TarKind,
  from: Pick<Ext4Reader, "content">,
  link?: string,
): Generator<Buffer> {
  if (link !== undefined) {
    yield encodeHeader(entryOf(path, inode, "hardlink", link));
    return;
  }
  const name = kind === "directory" ? `${path || "."}/` : path;
  yield encodeHeader(entryOf(name, inode, kind, inode.target));
  if (kind !== "file") return;
  yield* from.content(inode);
  yield padTo(inode.size);
}

/** What {@link layerOf} takes. */
export interface LayerOptions {
  /** Most bytes of content; a disk may say of its files that they are longer than any disk. */
  limitBytes: number;
  signal: AbortSignal;
  /** Told what a layer cannot hold. */
  onSkip(path: string, why: string): void;
}

/** The entry of an inode. */
function entryOf(path: string, inode: FoundInode, kind: TarKind, link: string): TarEntry {
  const { mode, uid, gid, mtime, mtimeNsec, major, minor } = inode;
  const xattrs = Object.entries(inode.xattrs).map(
    ([name, value]) => [name, Buffer.from(value, "hex")] as const,
  );
  return {
    path,
    kind,
    mode,
    uid,
    gid,
    mtime,
    mtimeNsec,
    size: kind === "file" ? inode.size : 0,
    link,
    major,
    minor,
    // A link's attributes are those of what it links to.
    xattrs: kind === "hardlink" || xattrs.length === 0 ? undefined : new Map(xattrs),
  };
}

/** An empty file, which stands for something. */
function marker(path: string): Buffer {
  return encodeHeader({
    path,
    kind: "file",
    mode: 0o644,
    uid: 0,
    gid: 0,
    mtime: 0,
    mtimeNsec: 0,
    size: 0,
    link: "",
    major: 0,
    minor: 0,
    xattrs: undefined,
  });
}

/** Where a name lies, with a slash, and the name. */
function split(path: string): [string, string] {
  const slash = path.lastIndexOf("/") + 1;
  return [path.slice(0, slash), path.slice(slash)];
}

/** The error for more content than a layer may have. */
function tooLarge(limitBytes: number): VmsanError {
  return new VmsanError({
    code: "ERR_CHANGES_TOO_LARGE",
    message: "Cannot make a layer of the VM's changes",
    why: `Its files say that they are longer than ${limitBytes} bytes together; holes count.`,
    fix: "Remove sparse files that no image should have.",
  });
}

/**
 * The archive, in pieces of at most 1 MiB.
 * @throws ERR_CHANGES_DISK, ERR_CHANGES_TOO_LARGE
 */
export async function* layerOf(
  changes: Iterable<Change>,
  options: LayerOptions,
): AsyncGenerator<Buffer> {
  const { signal, limitBytes } = options;
  let total = 0;
  let count = 0;
  /** Paths of what is not in the archive, though other names may lead to it. */
  const skipped = new Set<string>();
  try {
    for (const change of changes) {
      count += 1;
      if (count % BREATH === 0) await new Promise((resolve) => setImmediate(resolve));
      signal.throwIfAborted();
      const [directory, name] = split(change.path);
      if (change.act === "remove") {
        yield marker(`${directory}${WHITEOUT}${name}`);
        continue;
      }
      if (change.act === "opaque") {
        yield marker(`${change.path}/${OPAQUE}`);
        continue;
      }
      const { inode, from, link } = change;
      if (name.startsWith(WHITEOUT)) {
        skipped.add(change.path);
        options.onSkip(change.path, "in a layer its name means that another one is gone");
        continue;
      }
      if (link !== undefined && skipped.has(link)) {
        options.onSkip(change.path, `it is the same file as ${link}`);
        continue;
      }
      if (inode.kind === "socket") {
        skipped.add(change.path);
        options.onSkip(change.path, "layers hold no sockets");
        continue;
      }
      if (link === undefined && inode.kind === "file") total += inode.size;
      if (total > limitBytes) throw tooLarge(limitBytes);
      for (const piece of entryBytes(change.path, inode, inode.kind, from, link)) {
        signal.throwIfAborted();
        yield piece;
      }
    }
    yield END_OF_ARCHIVE;
  } catch (error) {
    throw damagedDisk(error);
  }
}
