/** The numbers that the writer gives to a tree's inodes. */
import { VmsanError } from "../model/errors.ts";
import { PLAIN_DIRECTORY, ROOT, type FileTree } from "../util/file-tree/file-tree.ts";
import { FIRST_INODE, LINK_MAX, ROOT_INODE } from "./constants.ts";

/** A tree with inode numbers. Inode `FIRST_INODE + i` is node `nodes[i]`. */
export interface NumberedTree {
  tree: FileTree;
  /** All nodes but the root, in order of their inode numbers. */
  nodes: Uint32Array;
  /** By node: its inode number. */
  numbers: Uint32Array;
  /** By node: names of one that is no directory; subdirectories + 2 of one that is. */
  links: Uint32Array;
  /** By node: inode number of a directory's parent. */
  parents: Uint32Array;
  /** Names in the caller's tree. */
  names: number;
  lostAndFound: number;
}

const LOST_AND_FOUND = "lost+found";

/**
 * Number a tree's inodes, breadth first, so that a directory's files are neighbours.
 * Adds `lost+found` to the tree where it has no such name.
 */
export function numberTree(tree: FileTree): NumberedTree {
  let names = 0;
  if (tree.find(ROOT, LOST_AND_FOUND) === 0) {
    // First, so that it gets the first free inode, as e2fsprogs expects.
    tree.link(ROOT, LOST_AND_FOUND, tree.add({ ...PLAIN_DIRECTORY, mode: 0o700 }), true);
    names = -1;
  }
  const all = new Uint32Array(tree.count);
  const numbers = new Uint32Array(tree.count + 1);
  const links = new Uint32Array(tree.count + 1);
  const parents = new Uint32Array(tree.count + 1);
  let count = 0;
  const visit = (directory: number): void => {
    const self = numbers[directory] ?? 0;
    let subdirectories = 0;
    for (let name = tree.first(directory); name !== 0; name = tree.next(name)) {
      const node = tree.child(name);
      const isDirectory = tree.kind(node) === "directory";
      names++;
      const known = links[node] ?? 0;
      if (known === 0) {
        all[count] = node;
        numbers[node] = FIRST_INODE + count++;
      } else if (known >= LINK_MAX) throw tooManyLinks(known + 1);
      links[node] = isDirectory ? 2 : known + 1;
      if (isDirectory) {
        parents[node] = self;
        subdirectories++;
      }
    }
    links[directory] = 2 + subdirectories;
  };
  numbers[ROOT] = ROOT_INODE;
  parents[ROOT] = ROOT_INODE;
  visit(ROOT);
  for (let i = 0; i < count; i++) {
    const node = all[i] ?? 0;
    if (tree.kind(node) === "directory") visit(node);
  }
  const lost = tree.child(tree.find(ROOT, LOST_AND_FOUND));
  return {
    tree,
    nodes: all.subarray(0, count),
    numbers,
    links,
    parents,
    names,
    lostAndFound: tree.kind(lost) === "directory" ? (numbers[lost] ?? 0) : 0,
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
