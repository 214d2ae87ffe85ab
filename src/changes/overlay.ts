/**
 * The changes of an overlay: its upper directory against the image's tree. Takes two file systems;
 * gives what must be done to the tree below to see what the guest saw.
 *
 * The kernel says it in its own way (Documentation/filesystems/overlayfs.rst): a character device 0/0
 * hides a name, `trusted.overlay.opaque` hides what is below a directory, and
 * `trusted.overlay.redirect` says that a directory shows another one of below: it was renamed.
 */
import type { Ext4Reader, FoundInode } from "../ext4/ext4.ts";

/** What must be done for one name, in an order in which it can be done. */
export type Change =
  | { act: "remove"; path: string }
  /** Nothing of below is in this directory any more. */
  | { act: "opaque"; path: string }
  | {
      act: "make";
      path: string;
      /** Whether the image has something of that name. */
      known: boolean;
      inode: FoundInode;
      /** Where its content is. */
      from: Ext4Reader;
      /** Same inode as this earlier path. */
      link?: string;
    };

/** What a guest's agent writes for each VM: no part of what a user has changed. */
const OF_THE_BOOT = new Set([
  "etc/resolv.conf",
  "etc/hosts",
  "etc/hostname",
  // Of each VM its own: copies of an image must not share it.
  "etc/machine-id",
  "run/vmsan",
]);
const OPAQUE = "trusted.overlay.opaque";
const REDIRECT = "trusted.overlay.redirect";
const OWN = "trusted.overlay.";
/** Of what the agent made to mount something there: what it was then, see guest/internal/netcfg/place.go. */
const PLACE = "trusted.vmsan.place";
/** An overlay in the guest, whose directories lie on this one, has its attributes one level down. */
const NESTED = "trusted.overlay.overlay.";
/** Directories within each other, and changes, at most: more only a hostile disk has. */
const MAX_DEPTH = 2000;
const MAX_CHANGES = 20_000_000;

/** A directory of one of the two file systems. */
interface Directory {
  inode: FoundInode;
  names: Map<string, number>;
  from: Ext4Reader;
}

/** A directory's names. Throws RangeError for one that cannot be. */
function openDirectory(from: Ext4Reader, inode: FoundInode): Directory {
  const names = new Map<string, number>();
  for (const { name, inode: number } of from.list(inode)) {
    if (name === "" || name.includes("/") || name.includes("\0")) {
      throw new RangeError(`a name ${JSON.stringify(name)} in a directory`);
    }
    names.set(name, number);
  }
  return { inode, names, from };
}

/** A name's inode when it is a directory. */
function childDirectory(of: Directory | undefined, name: string): FoundInode | undefined {
  const number = of?.names.get(name);
  if (of === undefined || number === undefined) return undefined;
  const inode = of.from.describe(number);
  return inode.kind === "directory" ? inode : undefined;
}

/** The directory at a path from a directory on; undefined when there is none. */
function directoryAt(root: Directory, path: string): FoundInode | undefined {
  let at = root;
  let found: FoundInode | undefined = root.inode;
  for (const name of path.split("/").filter((part) => part !== "")) {
    found = childDirectory(at, name);
    if (found === undefined) return undefined;
    at = openDirectory(root.from, found);
  }
  return found;
}

/** An attribute as text. */
function textOf(inode: FoundInode, name: string): string | undefined {
  const value = inode.xattrs[name];
  return value === undefined ? undefined : Buffer.from(value, "hex").toString("latin1");
}

/** Whether the inode is the sign that a name is gone. */
function isWhiteout(inode: FoundInode): boolean {
  return inode.kind === "char" && inode.major === 0 && inode.minor === 0;
}

/** Whether the agent made this for a mount, and nobody has touched it since; of a directory not what is in it. */
function isPlace(inode: FoundInode, path: string): boolean {
  const now = `${inode.mode.toString(8)} ${inode.uid} ${inode.gid} /${path}`;
  if (textOf(inode, PLACE) !== now) return false;
  const isEmpty = inode.kind === "directory" || inode.size === 0;
  // The agent gives it no attributes: an ACL, say, is somebody's, and need not show in the mode.
  return isEmpty && Object.keys(seen(inode).xattrs).length === 0;
}

/** What is in a directory that is none of the user's, behind it; nothing when there is nothing. */
function* withPlace(place: Change, inside: Iterable<Change>): Generator<Change> {
  let empty = true;
  for (const change of inside) {
    if (empty) yield place;
    empty = false;
    yield change;
  }
}

/** An inode as the guest sees it: without what overlay and agent keep in its attributes. */
function seen(inode: FoundInode): FoundInode {
  const xattrs = Object.entries(inode.xattrs).flatMap(([name, value]) => {
    if (name.startsWith(NESTED)) return [[OWN + name.slice(NESTED.length), value] as const];
    return name.startsWith(OWN) || name === PLACE ? [] : [[name, value] as const];
  });
  return { ...inode, xattrs: Object.fromEntries(xattrs) };
}

/** Walks both trees. */
class Walk {
  readonly #base: Directory;
  /** First path of each inode that has several names, for each file system. */
  readonly #links = new Map<Ext4Reader, Map<number, string>>();
  /** Directories of the upper file system on the way: one within itself has no end. */
  readonly #open = new Set<number>();
  #changes = 0;

  constructor(base: Directory) {
    this.#base = base;
  }

  #make(path: string, known: boolean, inode: FoundInode, from: Ext4Reader): Change {
    this.#changes += 1;
    if (this.#changes > MAX_CHANGES) throw new RangeError("a tree without end");
    const change: Change = { act: "make", path, known, inode: seen(inode), from };
    if (inode.kind === "directory" || inode.links < 2) return change;
    const links = this.#links.get(from) ?? new Map<number, string>();
    this.#links.set(from, links);
    const first = links.get(inode.inode);
    if (first === undefined) links.set(inode.inode, path);
    return first === undefined ? change : { ...change, link: first };
  }

  /** The directory of below that one of the upper file system shows as well. */
  #shown(inode: FoundInode, name: string, below: Directory | undefined): FoundInode | undefined {
    if (textOf(inode, OPAQUE) === "y") return undefined;
    const redirect = textOf(inode, REDIRECT);
    if (redirect === undefined) return childDirectory(below, name);
    return redirect.startsWith("/")
      ? directoryAt(this.#base, redirect)
      : childDirectory(below, redirect);
  }

  /** A directory of the upper file system, below the directories that {@link walk} was given. */
  *#within(
    path: string,
    name: string,
    inner: Directory,
    base: Directory | undefined,
    below: Directory | undefined,
    depth: number,
  ): Generator<Change> {
    const { inode } = inner;
    if (this.#open.has(inode.inode)) throw new RangeError("a directory within itself");
    this.#open.add(inode.inode);
    const there = childDirectory(base, name);
    const shown = this.#shown(inode, name, below);
    const same = there !== undefined && shown?.inode === there.inode;
    if (there !== undefined && !same) yield { act: "opaque", path };
    const opened = shown === undefined ? undefined : openDirectory(this.#base.from, shown);
    yield* this.walk(path, inner, same ? opened : undefined, opened, depth + 1);
    this.#open.delete(inode.inode);
  }

  /**
   * One directory.
   * @param upper what the guest has made or changed there
   * @param base the image's directory at this path, as far as it shows through a layer
   * @param below the image's directory whose names show: the same, or that of a renamed one
   */
  *walk(
    path: string,
    upper: Directory | undefined,
    base: Directory | undefined,
    below: Directory | undefined,
    depth: number,
  ): Generator<Change> {
    if (depth > MAX_DEPTH) throw new RangeError("directories within each other without end");
    const at = (name: string): string => (path === "" ? name : `${path}/${name}`);
    const names = [...(upper?.names ?? [])].sort(([a], [b]) => (a < b ? -1 : 1));
    for (const [name, number] of names) {
      if (upper === undefined || OF_THE_BOOT.has(at(name))) continue;
      const inode = upper.from.describe(number);
      const known = base?.names.has(name) === true;
      if (isWhiteout(inode)) {
        if (known) yield { act: "remove", path: at(name) };
        continue;
      }
      const place = !known && isPlace(inode, at(name));
      if (inode.kind !== "directory") {
        if (!place) yield this.#make(at(name), known, inode, upper.from);
        continue;
      }
      const made = this.#make(at(name), known, inode, upper.from);
      const inner = openDirectory(upper.from, inode);
      const inside = this.#within(at(name), name, inner, base, below, depth);
      if (place) yield* withPlace(made, inside);
      else {
        yield made;
        yield* inside;
      }
    }
    // What shows of a renamed directory is not at this path for those who look by layers.
    if (below === undefined || below === base) return;
    for (const [name, number] of [...below.names].sort(([a], [b]) => (a < b ? -1 : 1))) {
      if (upper?.names.has(name) === true) continue;
      const inode = below.from.describe(number);
      yield this.#make(at(name), false, inode, below.from);
      if (inode.kind !== "directory") continue;
      yield* this.walk(at(name), undefined, undefined, openDirectory(below.from, inode), depth + 1);
    }
  }
}

/** Attributes as text that is the same for the same ones. */
function xattrText({ xattrs }: FoundInode): string {
  return JSON.stringify(Object.entries(xattrs).sort(([one], [other]) => (one < other ? -1 : 1)));
}

/** Whether two directories differ in what a layer says of one. */
export function differs(a: FoundInode, b: FoundInode): boolean {
  return a.mode !== b.mode || a.uid !== b.uid || a.gid !== b.gid || xattrText(a) !== xattrText(b);
}

/**
 * Everything that a VM has changed. `upper` is its own file system with the directory `upper`, `base`
 * the image's. Throws RangeError for a file system that is damaged.
 */
export function* changesOf(upper: Ext4Reader, base: Ext4Reader): Generator<Change> {
  const rootOf = (reader: Ext4Reader): Directory => openDirectory(reader, reader.describe(2));
  const found = childDirectory(rootOf(upper), "upper");
  // A VM that has not come to mount its root yet.
  if (found === undefined) return;
  const below = rootOf(base);
  // The file system's own directory is none of the image's.
  const root = openDirectory(upper, found);
  if (differs(seen(found), below.inode)) {
    yield { act: "make", path: "", known: true, inode: seen(found), from: upper };
  }
  yield* new Walk(below).walk("", root, below, below, 0);
}
