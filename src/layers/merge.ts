/**
 * Layers applied one upon the other (OCI image spec, layer.md), from their remembered entries:
 * bottom to top, each layer's whiteouts first, since they hide only what lies below, whatever the
 * order within the layer. Symlinks on the way to an entry are followed inside the root.
 */
import { grow } from "../util/file-tree/column.ts";
import { PLAIN_DIRECTORY, ROOT, type FileTree } from "../util/file-tree/file-tree.ts";
import { ENTRY, type Entries, type LayerEntries } from "./entry.ts";
import { layerError, readable } from "./errors.ts";
import type { LayerLimits } from "./limits.ts";
import { cleanPath, isReserved } from "./path.ts";
import type { Places } from "./places.ts";

/** Symlinks followed on one path before it counts as a loop (the kernel stops at 40). */
const MAX_SYMLINKS = 255;

/** Directories that are remembered by their place, at most. */
const KNOWN_DIRECTORIES = 1024;

/** Merges layers into the tree that their entries are nodes of. */
class Merger {
  /** Names that entries have made so far, whether they are still there or not. */
  made = 0;
  /** Directories made because a path led through them. */
  private implied = 0;
  /** By node: is it a directory that no entry describes? */
  private implicit = new Uint8Array(256);
  private readonly entries: Entries;
  private readonly tree: FileTree;
  private readonly places: Places;
  private readonly limits: LayerLimits;
  /** The present layer, and what it keeps in aufs's directories, by place; read when it is asked for. */
  private range: LayerEntries = { from: 0, to: 0 };
  private asides: Map<number, number> | undefined;
  /** Directories that entries lay in, by place: others mostly follow. */
  private readonly known = new Map<number, number>();

  constructor(entries: Entries, limits: LayerLimits) {
    this.entries = entries;
    this.tree = entries.tree;
    this.places = entries.places;
    this.limits = limits;
  }

  /** Apply one layer on top of those before it. */
  apply(range: LayerEntries): void {
    this.whiteouts(range);
    this.forget();
    this.range = range;
    this.asides = undefined;
    for (let node = range.from; node < range.to; node++) {
      const act = this.entries.act(node);
      if (act === ENTRY.make || act === ENTRY.link) this.put(node, act === ENTRY.link);
    }
    this.forget();
  }

  /** Entries' names that are in the tree. */
  kept(): number {
    let kept = 0;
    for (const node of this.tree.nodes()) {
      for (let name = this.tree.first(node); name !== 0; name = this.tree.next(name)) {
        if (this.implicit[this.tree.child(name)] !== 1) kept++;
      }
    }
    return kept;
  }

  /** Must be called whenever a directory or symlink may have been replaced. */
  private forget(): void {
    this.known.clear();
  }

  /** Remove what a layer hides of the layers below. */
  private whiteouts({ from, to }: LayerEntries): void {
    const { entries, tree, places } = this;
    const hiding: number[] = [];
    for (let node = from; node < to; node++) {
      const act = entries.act(node);
      if (act === ENTRY.remove || act === ENTRY.opaque) hiding.push(node);
    }
    if (hiding.length === 0) return;
    const own = new Set<number>();
    for (let node = from; node < to; node++) {
      const act = entries.act(node);
      const real = act === ENTRY.link || (act === ENTRY.make && tree.kind(node) !== "symlink");
      if (real) own.add(entries.place(node));
    }
    for (const node of hiding) {
      const place = entries.place(node);
      const opaque = entries.act(node) === ENTRY.opaque;
      const directory = this.find(places.parts(opaque ? place : places.parent(place)), own);
      if (directory === 0 || tree.kind(directory) !== "directory") continue;
      if (opaque) {
        tree.clear(directory);
        continue;
      }
      const name = tree.findAt(directory, places.name(place));
      if (name !== 0) tree.unlink(name);
    }
  }

  /**
   * The node at a path of the tree as it is, 0 when there is none; every symlink on it is followed,
   * except where the layer itself replaces it (`own`, by place): then nothing of the layers below
   * lies there any more.
   */
  private find(parts: readonly string[], own: ReadonlySet<number> | undefined): number {
    const { tree, places } = this;
    const stack: number[] = [];
    let node = ROOT;
    const pending = [...parts].reverse();
    let walked = 0;
    let followed = 0;
    for (let part = pending.pop(); part !== undefined; part = pending.pop()) {
      if (part === "..") {
        node = stack.pop() ?? ROOT;
        continue;
      }
      const next = tree.child(tree.find(node, part));
      if (next === 0) return 0;
      if (followed === 0 && own !== undefined) walked = places.within(walked, part);
      if (tree.kind(next) !== "symlink") {
        stack.push(node);
        node = next;
        continue;
      }
      if (followed === 0 && own?.has(walked) === true) return 0;
      if (++followed > MAX_SYMLINKS) throw symlinkLoop(parts);
      const target = tree.target(next);
      if (target.startsWith("/")) {
        stack.length = 0;
        node = ROOT;
      }
      pushTarget(pending, target);
    }
    return node;
  }

  /**
   * The directory that an entry lies in, made where missing. Symlinks are followed inside the root; anything
   * else in the way is replaced by a directory.
   */
  private directory(place: number): number {
    const { tree, places } = this;
    const parent = places.parent(place);
    const known = this.known.get(parent);
    if (known !== undefined) return known;
    const parts = places.parts(place);
    const stack: number[] = [];
    let node = ROOT;
    const pending = parts.slice(0, -1).reverse();
    let followed = 0;
    for (let part = pending.pop(); part !== undefined; part = pending.pop()) {
      if (part === "..") {
        node = stack.pop() ?? ROOT;
        continue;
      }
      const name = tree.find(node, part);
      let next = tree.child(name);
      if (next !== 0 && tree.kind(next) === "symlink") {
        if (++followed > MAX_SYMLINKS) throw symlinkLoop(parts);
        const target = tree.target(next);
        if (target.startsWith("/")) {
          stack.length = 0;
          node = ROOT;
        }
        pushTarget(pending, target);
        continue;
      }
      if (next === 0 || tree.kind(next) !== "directory") {
        // Only a symlink's target can bring such a name here.
        if (part.length > 255 || isReserved(part)) throw badTarget(parts);
        if (++this.implied > this.limits.implied) throw tooManyImplied(this.limits.implied);
        next = tree.add(PLAIN_DIRECTORY);
        this.implicit = grow(this.implicit, next + 1);
        this.implicit[next] = 1;
        if (name === 0) tree.link(node, part, next);
        else tree.relink(name, next);
      }
      stack.push(node);
      node = next;
      if (stack.length > this.limits.depth) throw symlinkLoop(parts);
    }
    if (this.known.size === KNOWN_DIRECTORIES) this.known.clear();
    this.known.set(parent, node);
    return node;
  }

  /** Apply one ordinary entry. */
  private put(entry: number, isLink: boolean): void {
    const { tree, places } = this;
    const place = this.entries.place(entry);
    const kind = tree.kind(entry);
    if (place === 0) {
      if (kind !== "directory") throw notADirectory();
      tree.describe(ROOT, tree.fields(entry));
      return;
    }
    if (!isLink && kind === "symlink") this.checkSymlink(entry, place);
    const node = isLink ? this.linkTarget(entry, place) : entry;
    const parent = this.directory(place);
    const name = tree.findAt(parent, places.name(place));
    const existing = tree.child(name);
    if (name === 0) tree.linkAt(parent, places.name(place), node);
    else {
      if (kind === "directory" && tree.kind(existing) === "directory") {
        if (this.implicit[existing] === 1) this.made++;
        this.implicit[existing] = 0;
        tree.describe(existing, tree.fields(entry));
        return;
      }
      if (existing === node) return;
      // What is cached may have led through the entry that is replaced now.
      const before = tree.kind(existing);
      if (before === "directory" || before === "symlink") this.forget();
      tree.relink(name, node);
    }
    this.made++;
  }

  /** The node that a hard link names. */
  private linkTarget(entry: number, place: number): number {
    const { tree } = this;
    const link = tree.target(entry);
    const parts = cleanPath(link, this.limits);
    const name = parts.at(-1);
    const parent = this.find(parts.slice(0, -1), undefined);
    let node = name === undefined ? ROOT : tree.child(tree.find(parent, name));
    if (node === 0) node = this.aside(this.places.of(parts));
    if (node !== 0 && tree.kind(node) !== "directory") return node;
    throw layerError(
      "HARDLINK",
      `Cannot make the hard link ${this.readable(place)} to ${readable(link)}`,
      node === 0 ? "There is no such file in the image." : "That is a directory.",
    );
  }

  /** The file that the present layer keeps aside at a place, the same for all who link to it. */
  private aside(place: number): number {
    if (this.asides === undefined) {
      this.asides = new Map();
      for (let node = this.range.from; node < this.range.to; node++) {
        if (this.entries.act(node) === ENTRY.aside) this.asides.set(this.entries.place(node), node);
      }
    }
    return this.asides.get(place) ?? 0;
  }

  /** A place as people read it. */
  private readable(place: number): string {
    return readable(this.places.parts(place).join("/"));
  }

  /** Refuse targets that no kernel makes. */
  private checkSymlink(node: number, place: number): void {
    const { pathBytes } = this.limits;
    const target = this.tree.target(node);
    if (target !== "" && target.length < pathBytes && !target.includes("\0")) return;
    throw layerError(
      "SYMLINK",
      `Cannot make the symlink ${this.readable(place)} of a layer`,
      `Its target has ${target.length} bytes; 1 to ${pathBytes - 1} are allowed, and no NUL.`,
    );
  }
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
 * Merge layers into the tree of their entries.
 * @param layers bottom to top
 * @returns how many entries made names that are not in it
 * Throws ERR_LAYER_* for links to nothing, loops and the like.
 */
export function mergeLayers(
  entries: Entries,
  layers: readonly LayerEntries[],
  limits: LayerLimits,
): number {
  const merger = new Merger(entries, limits);
  for (const range of layers) merger.apply(range);
  return merger.made - merger.kept();
}
