/**
 * What upper layers hide, while layers stream by top-down. A guess by path, made without following
 * symlinks: the merge decides; what was left out wrongly is fetched by a second reading.
 */
import type { LayerEntries } from "./entry.ts";

/** Something in an upper layer at this path. */
const ENTRY = 1;
/** Hides everything at and below this path in lower layers. */
const ALL = 2;
/** Hides everything below this path in lower layers, not the directory itself. */
const CHILDREN = 4;

/** The paths that layers read so far decide. */
export class Cover {
  private readonly marks = new Map<string, number>();
  /** Targets of hard links in upper layers: content that is needed whoever hides it. */
  private readonly needed = new Set<string>();
  /** Directories asked for in the current layer: is everything below hidden? */
  private below = new Map<string, boolean>();

  /** Does an upper layer hide a file at this path? */
  hides(path: string): boolean {
    if (this.marks.size === 0 || this.needed.has(path)) return false;
    return (
      this.marks.has(path) || this.hiddenBelow(path.slice(0, Math.max(0, path.lastIndexOf("/"))))
    );
  }

  /** Is everything below this directory hidden? */
  private hiddenBelow(directory: string): boolean {
    const known = this.below.get(directory);
    if (known !== undefined) return known;
    // From the top down: no recursion, and all ancestors are remembered on the way.
    let hidden = ((this.marks.get("") ?? 0) & (ALL | CHILDREN)) !== 0;
    for (let end = 0; !hidden && end < directory.length;) {
      const slash = directory.indexOf("/", end + 1);
      end = slash < 0 ? directory.length : slash;
      const mark = this.marks.get(directory.slice(0, end)) ?? 0;
      hidden = (mark & (ALL | CHILDREN)) !== 0;
    }
    this.below.set(directory, hidden);
    return hidden;
  }

  /** Take in a whole layer, after it has been read: it hides only what lies below it. */
  add(entries: LayerEntries<unknown>): void {
    this.below = new Map();
    for (const { header, parts, path, whiteout } of entries) {
      switch (whiteout.kind) {
        case "ignore":
          break;
        case "remove":
          this.mark([...parts.slice(0, -1), whiteout.name].join("/"), ALL);
          break;
        case "opaque":
          this.mark(parts.slice(0, -1).join("/"), CHILDREN);
          break;
        case "none": {
          const directory = header.kind === "directory";
          this.mark(path, directory ? ENTRY : ALL);
          if (header.kind === "hardlink") this.needed.add(header.link.replace(/^(\.?\/)+/, ""));
        }
      }
    }
  }

  private mark(path: string, bits: number): void {
    this.marks.set(path, (this.marks.get(path) ?? 0) | bits);
  }
}
