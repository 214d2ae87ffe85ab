/** The tree that the writer takes, and the numbers that it gives to its inodes. */
import { VmsanError } from "../model/errors.ts";
import { FIRST_INODE, LINK_MAX, ROOT_INODE, type InodeKind } from "./constants.ts";
import type { Extents } from "./extent.ts";
import type { Xattrs } from "./xattr.ts";

/** An inode of the tree. The same object under several names is a file with hard links. */
export interface TreeInode {
  readonly kind: InodeKind;
  /** Permission bits with setuid, setgid and sticky. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Seconds since 1970 and nanoseconds. */
  readonly mtime: number;
  readonly mtimeNsec: number;
  readonly xattrs: Xattrs | undefined;
  /** Bytes of a file; its content lies in `content`, which is nothing where it is all holes. */
  readonly size: number;
  readonly content: Extents | undefined;
  /** Target of a symlink, as a byte string (latin1). */
  readonly target: string;
  readonly major: number;
  readonly minor: number;
  /** Names (latin1, 1–255 bytes, no `/`) of a directory. */
  readonly children: ReadonlyMap<string, TreeInode> | undefined;
}

/** A tree with inode numbers. Inode `FIRST_INODE + i` is `inodes[i]`. */
export interface NumberedTree {
  root: TreeInode;
  /** All inodes but the root, in order of their numbers. */
  inodes: TreeInode[];
  numbers: ReadonlyMap<TreeInode, number>;
  /** Names of each inode that is no directory; subdirectories + 2 of one that is. */
  links: ReadonlyMap<TreeInode, number>;
  /** Inode numbers of the directories' parents. */
  parents: ReadonlyMap<TreeInode, number>;
  /** Names in the caller's tree. */
  names: number;
  lostAndFound: number;
}

const LOST_AND_FOUND = "lost+found";

/** An empty directory of root's. */
function emptyDirectory(mode: number): TreeInode {
  return {
    kind: "directory",
    mode,
    uid: 0,
    gid: 0,
    mtime: 0,
    mtimeNsec: 0,
    xattrs: undefined,
    size: 0,
    content: undefined,
    target: "",
    major: 0,
    minor: 0,
    children: new Map(),
  };
}

/** The root of an empty file system: mode 0755, owned by root. */
export function emptyRoot(): TreeInode {
  return emptyDirectory(0o755);
}

/**
 * Number a tree's inodes, breadth first, so that a directory's files are neighbours.
 * Adds `lost+found` where the tree has no such name.
 */
export function numberTree(given: TreeInode): NumberedTree {
  const children = new Map(given.children);
  const own = children.get(LOST_AND_FOUND);
  if (own === undefined) {
    // First, so that it gets the first free inode, as e2fsprogs expects.
    const rest = [...children];
    children.clear();
    children.set(LOST_AND_FOUND, emptyDirectory(0o700));
    for (const [name, child] of rest) children.set(name, child);
  }
  const root: TreeInode = { ...given, kind: "directory", children };
  const inodes: TreeInode[] = [];
  const numbers = new Map<TreeInode, number>([[root, ROOT_INODE]]);
  const links = new Map<TreeInode, number>([[root, 2]]);
  const parents = new Map<TreeInode, number>([[root, ROOT_INODE]]);
  let names = own === undefined ? -1 : 0;
  const visit = (directory: TreeInode): void => {
    const self = numbers.get(directory) ?? 0;
    for (const child of directory.children?.values() ?? []) {
      names++;
      const isDirectory = child.kind === "directory";
      const known = links.get(child);
      if (known === undefined) {
        inodes.push(child);
        numbers.set(child, FIRST_INODE + inodes.length - 1);
        links.set(child, isDirectory ? 2 : 1);
      } else {
        links.set(child, known + 1);
        if (known >= LINK_MAX) throw tooManyLinks(known + 1);
      }
      if (isDirectory) {
        parents.set(child, self);
        links.set(directory, (links.get(directory) ?? 2) + 1);
      }
    }
  };
  visit(root);
  for (let i = 0; i < inodes.length; i++) {
    const inode = inodes[i];
    if (inode?.kind === "directory") visit(inode);
  }
  const lost = children.get(LOST_AND_FOUND);
  return {
    root,
    inodes,
    numbers,
    links,
    parents,
    names,
    lostAndFound: lost?.kind === "directory" ? (numbers.get(lost) ?? 0) : 0,
  };
}

/** The error for a file with more names than ext4 counts. */
function tooManyLinks(links: number): VmsanError {
  return new VmsanError({
    code: "ERR_DISK_LINKS",
    message: `Cannot store a file with ${links} hard links`,
    why: `ext4 counts at most ${LINK_MAX} names per file.`,
    fix: "Make some of the links files of their own.",
  });
}
