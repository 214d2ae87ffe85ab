/**
 * The files of an image: inodes in columns of numbers, and directories that name them. A million
 * files take some 100 MB here; as objects they took ten times that, and the time to collect them.
 */
import { grow } from "./column.ts";
import { NameTable } from "./names.ts";
import { Text } from "./text.ts";

/** Kinds of inode. */
const NODE_KINDS = ["file", "directory", "symlink", "char", "block", "fifo"] as const;
export type NodeKind = (typeof NODE_KINDS)[number];
const KIND_NUMBERS = Object.fromEntries(NODE_KINDS.map((kind, i) => [kind, i])) as Record<
  NodeKind,
  number
>;

/** What is told of an inode when it is made. */
export interface NodeFields {
  kind: NodeKind;
  /** Permission bits with setuid, setgid and sticky. */
  mode: number;
  uid: number;
  gid: number;
  /** Seconds since 1970 and nanoseconds. */
  mtime: number;
  mtimeNsec: number;
  /** Bytes of a file. */
  size: number;
  /** Target of a link, as a byte string (latin1) of at most 4096 bytes. */
  target: string;
  /** Device number: at most 0xfff and 0xfffff. */
  major: number;
  minor: number;
  /** Attributes by full name. */
  xattrs: ReadonlyMap<string, Uint8Array> | undefined;
}

/** An empty directory of root's: mode 0755, of the year 1970. */
export const PLAIN_DIRECTORY: NodeFields = {
  kind: "directory",
  mode: 0o755,
  uid: 0,
  gid: 0,
  mtime: 0,
  mtimeNsec: 0,
  size: 0,
  target: "",
  major: 0,
  minor: 0,
  xattrs: undefined,
};

/** The root's number. */
export const ROOT = 1;

/** A tree of inodes; a node is a number ≥ 1. One node under several names is a file with hard links. */
export class FileTree {
  readonly text = new Text();
  /** Numbers given out so far. */
  count = 0;
  // By node.
  private kinds = new Uint8Array(256);
  modes = new Uint16Array(256);
  uids = new Uint32Array(256);
  gids = new Uint32Array(256);
  mtimes = new Float64Array(256);
  nsecs = new Uint32Array(256);
  sizes = new Float64Array(256);
  /** Number of a file's content, as whoever stored it counts; 0 for one that is nowhere, or has no bytes but zeros. */
  contents = new Uint32Array(256);
  /** A link's target (in {@link text}), or a device's number. */
  private extras = new Uint32Array(256);
  readonly xattrs = new Map<number, ReadonlyMap<string, Uint8Array>>();
  /** First and last name of a directory. */
  private firsts = new Uint32Array(256);
  private lasts = new Uint32Array(256);
  // By name.
  private readonly table = new NameTable(this.text);
  private children = new Uint32Array(256);
  private nexts = new Uint32Array(256);

  /** @param root what the root is; a directory */
  constructor(root: NodeFields = PLAIN_DIRECTORY) {
    this.add(root);
  }

  /** Make an inode that has no name yet. @returns its number */
  add(fields: NodeFields): number {
    const node = ++this.count;
    if (node >= this.kinds.length) this.widen(node + 1);
    this.kinds[node] = KIND_NUMBERS[fields.kind];
    this.sizes[node] = fields.size;
    this.extras[node] =
      fields.target === "" ? fields.major * 2 ** 20 + fields.minor : this.text.add(fields.target);
    this.describe(node, fields);
    return node;
  }

  private widen(length: number): void {
    this.kinds = grow(this.kinds, length);
    this.modes = grow(this.modes, length);
    this.uids = grow(this.uids, length);
    this.gids = grow(this.gids, length);
    this.mtimes = grow(this.mtimes, length);
    this.nsecs = grow(this.nsecs, length);
    this.sizes = grow(this.sizes, length);
    this.contents = grow(this.contents, length);
    this.extras = grow(this.extras, length);
    this.firsts = grow(this.firsts, length);
    this.lasts = grow(this.lasts, length);
  }

  /** Give an inode other metadata: owner, mode, time and attributes. */
  describe(
    node: number,
    fields: Pick<NodeFields, "mode" | "uid" | "gid" | "mtime" | "mtimeNsec" | "xattrs">,
  ): void {
    this.modes[node] = fields.mode;
    this.uids[node] = fields.uid;
    this.gids[node] = fields.gid;
    this.mtimes[node] = fields.mtime;
    this.nsecs[node] = fields.mtimeNsec;
    if (fields.xattrs !== undefined && fields.xattrs.size > 0) this.xattrs.set(node, fields.xattrs);
    else if (this.xattrs.size > 0) this.xattrs.delete(node);
  }

  /** Everything about an inode. */
  fields(node: number): NodeFields {
    const device = this.extras[node] ?? 0;
    const kind = this.kind(node);
    const special = kind === "char" || kind === "block";
    return {
      kind,
      mode: this.modes[node] ?? 0,
      uid: this.uids[node] ?? 0,
      gid: this.gids[node] ?? 0,
      mtime: this.mtimes[node] ?? 0,
      mtimeNsec: this.nsecs[node] ?? 0,
      size: this.sizes[node] ?? 0,
      target: kind === "symlink" ? this.target(node) : "",
      major: special ? device >>> 20 : 0,
      minor: special ? device & 0xfffff : 0,
      xattrs: this.xattrs.get(node),
    };
  }

  /** What an inode is. */
  kind(node: number): NodeKind {
    return NODE_KINDS[this.kinds[node] ?? 0] ?? "file";
  }

  /** Where a link leads. */
  target(node: number): string {
    return this.text.get(this.extras[node] ?? 0);
  }

  /** The name (a number for the methods below) in a directory; 0 when it is not there. */
  find(directory: number, name: string): number {
    return this.findAt(directory, this.text.stage(name));
  }

  /** The same, with the name's offset in the text. */
  findAt(directory: number, name: number): number {
    return this.table.find(directory, name);
  }

  /** Give an inode a name that is not in use. @param first in front of all other names */
  link(directory: number, name: string, node: number, first = false): void {
    this.linkAt(directory, this.text.stage(name), node, first);
  }

  /** The same, with the name's offset in the text. */
  linkAt(directory: number, name: number, node: number, first = false): void {
    const number = this.table.add(directory, name);
    if (number >= this.children.length) {
      this.children = grow(this.children, number + 1);
      this.nexts = grow(this.nexts, number + 1);
    }
    this.children[number] = node;
    const head = this.firsts[directory] ?? 0;
    if (head === 0) {
      this.firsts[directory] = number;
      this.lasts[directory] = number;
    } else if (first) {
      this.nexts[number] = head;
      this.firsts[directory] = number;
    } else {
      this.nexts[this.lasts[directory] ?? 0] = number;
      this.lasts[directory] = number;
    }
  }

  /** Let a name stand for another inode. */
  relink(name: number, node: number): void {
    this.children[name] = node;
  }

  /** Take a name out of its directory. */
  unlink(name: number): void {
    this.table.remove(name);
    this.children[name] = 0;
  }

  /** Take all names out of a directory. */
  clear(directory: number): void {
    for (let name = this.first(directory); name !== 0; name = this.next(name)) this.unlink(name);
    this.firsts[directory] = 0;
    this.lasts[directory] = 0;
  }

  /** The first name of a directory, in the order they were given; 0 when it is empty. */
  first(directory: number): number {
    return this.present(this.firsts[directory] ?? 0);
  }

  /** The name behind this one in its directory; 0 at the end. */
  next(name: number): number {
    return this.present(this.nexts[name] ?? 0);
  }

  private present(name: number): number {
    let at = name;
    while (at !== 0 && this.children[at] === 0) at = this.nexts[at] ?? 0;
    return at;
  }

  /** The inode that a name stands for. */
  child(name: number): number {
    return this.children[name] ?? 0;
  }

  /** A name's offset in the text. */
  nameAt(name: number): number {
    return this.table.names[name] ?? 0;
  }

  /** A name's text (latin1). */
  name(name: number): string {
    return this.text.get(this.nameAt(name));
  }

  /** Every inode once that has a name, the root first, directories before what they hold. */
  nodes(): Uint32Array {
    const seen = new Uint8Array(this.count + 1);
    const found = new Uint32Array(this.count);
    seen[ROOT] = 1;
    found[0] = ROOT;
    let end = 1;
    for (let at = 0; at < end; at++) {
      for (let name = this.first(found[at] ?? 0); name !== 0; name = this.next(name)) {
        const child = this.child(name);
        if (seen[child] === 1) continue;
        seen[child] = 1;
        found[end++] = child;
      }
    }
    return found.subarray(0, end);
  }
}
