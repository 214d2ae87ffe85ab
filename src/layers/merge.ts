/**
 * Layers applied one upon the other (OCI image spec, layer.md), from their remembered entries:
 * bottom to top, each layer's whiteouts first, since they hide only what lies below, whatever the
 * order within the layer. Symlinks on the way to an entry are followed inside the root.
 */
import type { LayerEntries, LayerEntry } from "./entry.ts";
import { layerError, readable } from "./errors.ts";
import type { LayerLimits } from "./limits.ts";
import { cleanPath, isReserved } from "./path.ts";
import { describe, implicitDirectory, nodeOf, type TreeNode } from "./tree.ts";

/** Symlinks followed on one path before it counts as a loop (the kernel stops at 40). */
const MAX_SYMLINKS = 255;

/**
 * What one layer keeps in aufs's own directories (`.wh..wh.plnk`): no part of the tree, but the only
 * place where images of that time have the content of files with several names.
 */
class Aside<Content> {
  private readonly entries: LayerEntries<Content>;
  private readonly layer: number;
  private found: Map<string, TreeNode<Content>> | undefined;

  constructor(entries: LayerEntries<Content>, layer: number) {
    this.entries = entries;
    this.layer = layer;
  }

  /** The file kept at this path, the same for all who link to it. */
  node(path: string): TreeNode<Content> | undefined {
    if (this.found === undefined) {
      this.found = new Map();
      for (const [index, { header, whiteout, path: at, content }] of this.entries.entries()) {
        if (whiteout.kind !== "ignore" || header.kind !== "file") continue;
        this.found.set(at, nodeOf(header, "file", content, { layer: this.layer, entry: index }));
      }
    }
    return this.found.get(path);
  }
}

/** Merges layers into one tree. */
class Merger<Content> {
  readonly root: TreeNode<Content> = implicitDirectory();
  /** Names that entries have made so far, whether they are still there or not. */
  made = 0;
  /** Directories made because a path led through them. */
  private implied = 0;
  private readonly limits: LayerLimits;
  private aside: Aside<Content> | undefined;
  /** The directory that the last entry lay in: its neighbours mostly follow. */
  private lastPath: string | undefined;
  private lastDirectory: TreeNode<Content> | undefined;

  constructor(limits: LayerLimits) {
    this.limits = limits;
  }

  /** Apply one layer on top of those before it. */
  apply(entries: LayerEntries<Content>, layer: number): void {
    this.whiteouts(entries);
    this.forget();
    this.aside = new Aside(entries, layer);
    entries.forEach((entry, index) => {
      if (entry.whiteout.kind === "none") this.put(entry, layer, index);
    });
    this.forget();
  }

  /** Must be called whenever a directory or symlink may have been replaced. */
  private forget(): void {
    this.lastPath = undefined;
    this.lastDirectory = undefined;
  }

  /** Remove what a layer hides of the layers below. */
  private whiteouts(entries: LayerEntries<Content>): void {
    const hiding = entries.filter(
      ({ whiteout: { kind } }) => kind === "remove" || kind === "opaque",
    );
    if (hiding.length === 0) return;
    const own = new Set<string>();
    for (const { header, path, whiteout } of entries) {
      if (whiteout.kind === "none" && header.kind !== "symlink") own.add(path);
    }
    for (const { parts, whiteout } of hiding) {
      const directory = this.find(parts.slice(0, -1), own);
      if (directory?.children === undefined) continue;
      if (whiteout.kind === "opaque") directory.children.clear();
      else if (whiteout.kind === "remove") directory.children.delete(whiteout.name);
    }
  }

  /**
   * The node at a path of the tree as it is; every symlink on it is followed, except where the
   * layer itself replaces it (`own`): then nothing of the layers below lies there any more.
   */
  private find(
    parts: readonly string[],
    own: ReadonlySet<string> | undefined,
  ): TreeNode<Content> | undefined {
    const stack: TreeNode<Content>[] = [];
    let node: TreeNode<Content> = this.root;
    const pending = [...parts].reverse();
    const walked: string[] = [];
    let followed = 0;
    for (let part = pending.pop(); part !== undefined; part = pending.pop()) {
      if (part === "..") {
        node = stack.pop() ?? this.root;
        continue;
      }
      const next = node.children?.get(part);
      if (next === undefined) return undefined;
      if (followed === 0) walked.push(part);
      if (next.kind !== "symlink") {
        stack.push(node);
        node = next;
        continue;
      }
      if (followed === 0 && own?.has(walked.join("/")) === true) return undefined;
      if (++followed > MAX_SYMLINKS) throw symlinkLoop(parts);
      if (next.target.startsWith("/")) {
        stack.length = 0;
        node = this.root;
      }
      pushTarget(pending, next.target);
    }
    return node;
  }

  /**
   * The directory that an entry lies in, made where missing. Symlinks are followed inside the root; anything
   * else in the way is replaced by a directory.
   */
  private directory({ parts, path: whole }: LayerEntry<Content>): TreeNode<Content> {
    const path = whole.slice(0, Math.max(0, whole.lastIndexOf("/")));
    if (path === this.lastPath && this.lastDirectory !== undefined) return this.lastDirectory;
    const stack: TreeNode<Content>[] = [];
    let node: TreeNode<Content> = this.root;
    const pending = parts.slice(0, -1).reverse();
    let followed = 0;
    for (let part = pending.pop(); part !== undefined; part = pending.pop()) {
      if (part === "..") {
        node = stack.pop() ?? this.root;
        continue;
      }
      let next: TreeNode<Content> | undefined = node.children?.get(part);
      if (next?.kind === "symlink") {
        if (++followed > MAX_SYMLINKS) throw symlinkLoop(parts);
        if (next.target.startsWith("/")) {
          stack.length = 0;
          node = this.root;
        }
        pushTarget(pending, next.target);
        continue;
      }
      if (next?.kind !== "directory") {
        // Only a symlink's target can bring such a name here.
        if (part.length > 255 || isReserved(part)) throw badTarget(parts);
        if (++this.implied > this.limits.implied) throw tooManyImplied(this.limits.implied);
        next = implicitDirectory();
        node.children?.set(part, next);
      }
      stack.push(node);
      node = next;
      if (stack.length > this.limits.depth) throw symlinkLoop(parts);
    }
    this.lastPath = path;
    this.lastDirectory = node;
    return node;
  }

  /** Apply one ordinary entry. */
  private put(entry: LayerEntry<Content>, layer: number, index: number): void {
    const { header, parts } = entry;
    const name = parts.at(-1);
    if (name === undefined) {
      if (header.kind === "directory") describe(this.root, header);
      else throw notADirectory();
      return;
    }
    if (header.kind === "symlink") checkSymlink(header.link, parts, this.limits);
    const target = header.kind === "hardlink" ? this.linkTarget(entry) : undefined;
    const parent = this.directory(entry);
    const existing = parent.children?.get(name);
    if (header.kind === "directory" && existing?.kind === "directory") {
      if (!existing.explicit) this.made++;
      describe(existing, header);
      return;
    }
    if (target !== undefined && existing === target) return;
    // What is cached may have led through the entry that is replaced now.
    if (existing !== undefined && (existing.kind === "directory" || existing.kind === "symlink")) {
      this.forget();
    }
    if (existing !== undefined) parent.children?.delete(name);
    const node =
      header.kind === "hardlink"
        ? target
        : nodeOf(header, header.kind, entry.content, { layer, entry: index });
    if (node !== undefined) parent.children?.set(name, node);
    this.made++;
  }

  /** The node that a hard link names. */
  private linkTarget({ header, parts }: LayerEntry<Content>): TreeNode<Content> {
    const target = cleanPath(header.link, this.limits);
    const name = target.at(-1);
    const parent = this.find(target.slice(0, -1), undefined);
    const node =
      name === undefined
        ? this.root
        : (parent?.children?.get(name) ?? this.aside?.node(target.join("/")));
    if (node !== undefined && node.kind !== "directory") return node;
    throw layerError(
      "HARDLINK",
      `Cannot make the hard link ${readable(parts.join("/"))} to ${readable(header.link)}`,
      node === undefined ? "There is no such file in the image." : "That is a directory.",
    );
  }
}

/** Refuse targets that no kernel makes. */
function checkSymlink(target: string, parts: readonly string[], limits: LayerLimits): void {
  if (target !== "" && target.length < limits.pathBytes && !target.includes("\0")) return;
  throw layerError(
    "SYMLINK",
    `Cannot make the symlink ${readable(parts.join("/"))} of a layer`,
    `Its target has ${target.length} bytes; 1 to ${limits.pathBytes - 1} are allowed, and no NUL.`,
  );
}

/** Put a symlink's components on top of those still to walk. */
function pushTarget(pending: string[], target: string): void {
  const parts = target.split("/").filter((part) => part !== "" && part !== ".");
  for (let i = parts.length - 1; i >= 0; i--) pending.push(parts[i] ?? "");
}

/** The error for a path that leads in circles, or absurdly deep. */
function symlinkLoop(parts: readonly string[]): Error {
  return layerError(
    "SYMLINK_LOOP",
    `Cannot follow the path ${readable(parts.join("/").slice(0, 200))} of a layer`,
    "Its symlinks form a loop, or lead too deep.",
  );
}

/** The error for paths that lead through more directories than an image may have. */
function tooManyImplied(limit: number): Error {
  return layerError(
    "LIMIT",
    "Cannot use the image",
    `The paths of its layers lead through more than ${limit} directories without an entry.`,
    "Use another image.",
  );
}

/** The error for a symlink on the way whose target cannot be made. */
function badTarget(parts: readonly string[]): Error {
  return layerError(
    "SYMLINK",
    `Cannot follow the path ${readable(parts.join("/").slice(0, 200))} of a layer`,
    "A symlink on it leads to a name that is too long, or kept for whiteouts.",
  );
}

/** The error for a root that is something else. */
function notADirectory(): Error {
  return layerError(
    "ROOT",
    "Cannot apply a layer",
    "It makes the root something else than a directory.",
  );
}

/**
 * Merge layers.
 * @param layers bottom to top
 * @returns the tree, and how many entries made names that are not in it
 * Throws ERR_LAYER_* for links to nothing, loops and the like.
 */
export function mergeLayers<Content>(
  layers: readonly LayerEntries<Content>[],
  limits: LayerLimits,
): { root: TreeNode<Content>; dropped: number } {
  const merger = new Merger<Content>(limits);
  layers.forEach((entries, layer) => merger.apply(entries, layer));
  let kept = 0;
  for (const { children } of walkNodes(merger.root)) {
    for (const child of children?.values() ?? []) if (child.explicit) kept++;
  }
  return { root: merger.root, dropped: merger.made - kept };
}

/** Every inode of a tree once, the root first, directories before what they hold. */
export function* walkNodes<Content>(root: TreeNode<Content>): Generator<TreeNode<Content>> {
  const seen = new Set<TreeNode<Content>>([root]);
  const queue = [root];
  for (let node = queue.pop(); node !== undefined; node = queue.pop()) {
    yield node;
    for (const child of node.children?.values() ?? []) {
      if (seen.has(child)) continue;
      seen.add(child);
      queue.push(child);
    }
  }
}
