/** The merged tree. Its nodes are inodes; a file with hard links is one node under several names. */
import type { TarEntry, TarKind } from "./tar/reader.ts";

/** Kinds of inode. */
export type NodeKind = Exclude<TarKind, "hardlink">;

/** An inode of the merged tree. `Content` is the builder's: where the file's content went. */
export interface TreeNode<Content> {
  kind: NodeKind;
  mode: number;
  uid: number;
  gid: number;
  mtime: number;
  mtimeNsec: number;
  xattrs: Map<string, Uint8Array> | undefined;
  size: number;
  target: string;
  major: number;
  minor: number;
  children: Map<string, TreeNode<Content>> | undefined;
  content: Content | undefined;
  /** An entry made or described it; false for directories that only a path implies. */
  explicit: boolean;
  /** The layer and entry that the content comes from. */
  origin: { layer: number; entry: number } | undefined;
}

/** A directory that no entry describes: 0755, root's, 1970. */
export function implicitDirectory<Content>(): TreeNode<Content> {
  return {
    kind: "directory",
    mode: 0o755,
    uid: 0,
    gid: 0,
    mtime: 0,
    mtimeNsec: 0,
    xattrs: undefined,
    size: 0,
    target: "",
    major: 0,
    minor: 0,
    children: new Map(),
    content: undefined,
    explicit: false,
    origin: undefined,
  };
}

/** The node that a header describes. */
export function nodeOf<Content>(
  header: TarEntry,
  kind: NodeKind,
  content: Content | undefined,
  origin: { layer: number; entry: number },
): TreeNode<Content> {
  const file = kind === "file";
  return {
    kind,
    // Linux gives symlinks no other permissions, whatever archives say.
    mode: kind === "symlink" ? 0o777 : header.mode,
    uid: header.uid,
    gid: header.gid,
    mtime: header.mtime,
    mtimeNsec: header.mtimeNsec,
    xattrs: header.xattrs,
    size: file ? header.size : 0,
    target: kind === "symlink" ? header.link : "",
    major: header.major,
    minor: header.minor,
    children: kind === "directory" ? new Map() : undefined,
    content: file ? content : undefined,
    explicit: true,
    origin: file ? origin : undefined,
  };
}

/** Give a directory another header's metadata; its children stay. */
export function describe<Content>(node: TreeNode<Content>, header: TarEntry): void {
  node.mode = header.mode;
  node.uid = header.uid;
  node.gid = header.gid;
  node.mtime = header.mtime;
  node.mtimeNsec = header.mtimeNsec;
  node.xattrs = header.xattrs;
  node.explicit = true;
}
