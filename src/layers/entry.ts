/** Entries of layers as they are remembered until all layers are known: nodes without a name. */
import { grow } from "../util/file-tree/column.ts";
import { FileTree, PLAIN_DIRECTORY, type NodeFields } from "../util/file-tree/file-tree.ts";
import type { LayerLimits } from "./limits.ts";
import { cleanPath, whiteoutOf } from "./path.ts";
import { Places } from "./places.ts";
import type { TarEntry } from "./tar/reader.ts";

/** What an entry does. */
export const ENTRY = {
  /** Makes or describes something. */
  make: 0,
  /** Gives a file another name. */
  link: 1,
  /** Whiteouts: hide one name below, or all of them. */
  remove: 2,
  opaque: 3,
  /**
   * Keeps a file in one of aufs's own directories (`.wh..wh.plnk`): no part of the tree, but the only
   * place where images of that time have the content of files with several names.
   */
  aside: 4,
} as const;

/** Directories that {@link Entries.locate} remembers by their text, at most. */
const KNOWN_DIRECTORIES = 1024;

/** Entries of one layer: the nodes `from` … `to`−1, in archive order. */
export interface LayerEntries {
  from: number;
  to: number;
}

/** All entries read so far. */
export class Entries {
  readonly tree = new FileTree();
  readonly places: Places;
  private readonly limits: LayerLimits;
  private acts = new Uint8Array(256);
  private spots = new Uint32Array(256);
  /** Files whose content was left out, or given back: 1. */
  private lacking = new Uint8Array(256);
  /** By place: the last file with that path. */
  private files = new Uint32Array(256);
  /** Places of directories that entries lay in, as the archive wrote them: others will follow. */
  private readonly directories = new Map<string, number>();

  constructor(limits: LayerLimits) {
    this.limits = limits;
    this.places = new Places(this.tree.text, limits);
  }

  /**
   * What an entry does, and where. A whiteout is where what it hides lies.
   * @returns undefined for a marker that means nothing here
   */
  locate({ path, kind }: TarEntry): { act: number; place: number } | undefined {
    const slash = path.lastIndexOf("/");
    const directory = path.slice(0, Math.max(0, slash));
    const name = path.slice(slash + 1);
    if (isPlain(name) && path.length <= this.limits.pathBytes) {
      const known = this.directories.get(directory);
      if (known !== undefined) return { act: ENTRY.make, place: this.places.within(known, name) };
    }
    const parts = cleanPath(path, this.limits);
    const whiteout = whiteoutOf(parts);
    if (whiteout.kind === "ignore") {
      return kind === "file" ? { act: ENTRY.aside, place: this.places.of(parts) } : undefined;
    }
    if (whiteout.kind === "none" && parts.length === 0) return { act: ENTRY.make, place: 0 };
    const parent = this.places.of(parts.slice(0, -1));
    if (whiteout.kind === "opaque") return { act: ENTRY.opaque, place: parent };
    if (whiteout.kind === "remove") {
      return { act: ENTRY.remove, place: this.places.within(parent, whiteout.name) };
    }
    if (parts.at(-1) === name) {
      if (this.directories.size === KNOWN_DIRECTORIES) this.directories.clear();
      this.directories.set(directory, parent);
    }
    return { act: ENTRY.make, place: this.places.within(parent, parts.at(-1) ?? "") };
  }

  /** Remember an entry. @returns its node */
  add(header: TarEntry, act: number, place: number): number {
    const node = this.tree.add(fieldsOf(header, act));
    if (node >= this.acts.length) {
      this.acts = grow(this.acts, node + 1);
      this.spots = grow(this.spots, node + 1);
      this.lacking = grow(this.lacking, node + 1);
    }
    this.acts[node] = act === ENTRY.make && header.kind === "hardlink" ? ENTRY.link : act;
    this.spots[node] = place;
    return node;
  }

  /** A file is at this place from now on. @returns the file before it, of any layer; 0 for none */
  replaceFile(place: number, node: number): number {
    if (place >= this.files.length) this.files = grow(this.files, place + 1);
    const before = this.files[place] ?? 0;
    this.files[place] = node;
    return before;
  }

  /** What an entry does: see {@link ENTRY}. */
  act(node: number): number {
    return this.acts[node] ?? 0;
  }

  /** Where it does so. */
  place(node: number): number {
    return this.spots[node] ?? 0;
  }

  /** Note a file's content, or that it is not there although the file may be needed. */
  setContent(node: number, content: number | undefined): void {
    this.tree.contents[node] = content ?? 0;
    this.lacking[node] = content === undefined ? 1 : 0;
  }

  /** Is this a file of the layers whose content is not there? */
  lacks(node: number): boolean {
    return this.lacking[node] === 1;
  }
}

/** What an entry makes, or stands for until layers are merged. */
function fieldsOf(header: TarEntry, act: number): NodeFields {
  const { uid, gid, mtime, mtimeNsec, major, minor, xattrs } = header;
  if (act === ENTRY.remove || act === ENTRY.opaque) return PLAIN_DIRECTORY;
  const link = header.kind === "hardlink" || header.kind === "symlink";
  return {
    kind: header.kind === "hardlink" ? "symlink" : header.kind,
    // Linux gives symlinks no other permissions, whatever archives say.
    mode: link ? 0o777 : header.mode,
    uid,
    gid,
    mtime,
    mtimeNsec,
    size: header.kind === "file" ? header.size : 0,
    target: link ? header.link : "",
    major,
    minor,
    xattrs,
  };
}

/** Is this a name that cleaning leaves as it is, and no whiteout? */
function isPlain(name: string): boolean {
  if (name === "" || name.length > 255 || name.includes("\0")) return false;
  return !name.startsWith(".") || (name !== "." && name !== ".." && !name.startsWith(".wh."));
}
