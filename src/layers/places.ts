/**
 * The paths that entries name, as text, each once; and what upper layers hide of them while layers
 * stream by top-down. That is a guess made without following symlinks: the merge decides, and what
 * was left out wrongly is fetched by a second reading.
 */
import { grow } from "../util/file-tree/column.ts";
import { NameTable } from "../util/file-tree/names.ts";
import type { Text } from "../util/file-tree/text.ts";
import { tooMany } from "./errors.ts";
import type { LayerLimits } from "./limits.ts";

/** What upper layers say about a path. */
export const MARK = {
  /** There is something. */
  entry: 1,
  /** Hides everything at and below it in lower layers. */
  all: 2,
  /** Hides everything below it in lower layers, not the directory itself. */
  children: 4,
  /** A hard link in an upper layer names it: its content is needed, whoever hides it. */
  needed: 8,
} as const;

const COVERS = MARK.all | MARK.children;
const HIDES = MARK.entry | COVERS;

/** A tree of paths. A place is a number; 0 is the root. */
export class Places {
  private readonly table: NameTable;
  private readonly mayAdd: () => void;
  private marks = new Uint8Array(256);
  private marked = false;
  /** Is everything below a place hidden? 0 unknown, 1 no, 2 yes; of the present layer. */
  private below = new Uint8Array(256);

  constructor(text: Text, limits: LayerLimits) {
    this.table = new NameTable(text);
    const most = limits.entries + limits.implied;
    this.mayAdd = () => {
      if (this.table.count >= most) throw tooMany(`more than ${most} paths`);
    };
  }

  /** The place of a path, made where it is new. Throws ERR_LAYER_LIMIT. */
  of(parts: readonly string[]): number {
    let place = 0;
    for (const part of parts) place = this.within(place, part);
    return place;
  }

  /** The place of a name in another place, made where it is new. */
  within(parent: number, part: string): number {
    return this.table.findOrAdd(parent, this.table.text.stage(part), this.mayAdd);
  }

  /** The place that a place lies in. */
  parent(place: number): number {
    return this.table.parents[place] ?? 0;
  }

  /** Where a place's own name is in the text; not for the root. */
  name(place: number): number {
    return this.table.names[place] ?? 0;
  }

  /** A place's path, outermost name first. */
  parts(place: number): string[] {
    const parts: string[] = [];
    for (let at = place; at !== 0; at = this.parent(at)) {
      parts.push(this.table.text.get(this.name(at)));
    }
    return parts.reverse();
  }

  /** Take in what a layer says about a place; only once that layer has been read. */
  mark(place: number, bits: number): void {
    if (place >= this.marks.length) this.marks = grow(this.marks, place + 1);
    this.marks[place] = (this.marks[place] ?? 0) | bits;
    this.marked = true;
  }

  /** A lower layer is read from now on. */
  descend(): void {
    this.below = new Uint8Array(this.table.count + 1);
  }

  /** Does an upper layer hide a file at this place? */
  hides(place: number): boolean {
    if (!this.marked) return false;
    const marks = this.marks[place] ?? 0;
    if ((marks & MARK.needed) !== 0) return false;
    return (marks & HIDES) !== 0 || this.coveredBelow(this.parent(place));
  }

  /** Is everything below this place hidden? All places on the way up are remembered. */
  private coveredBelow(place: number): boolean {
    if (place >= this.below.length) this.below = grow(this.below, place + 1);
    const { below, marks } = this;
    let top = place;
    while (top !== 0 && below[top] === 0 && ((marks[top] ?? 0) & COVERS) === 0) {
      top = this.parent(top);
    }
    const covered = below[top] === 2 || ((marks[top] ?? 0) & COVERS) !== 0;
    for (let at = place; at !== top; at = this.parent(at)) below[at] = covered ? 2 : 1;
    below[top] = covered ? 2 : 1;
    return covered;
  }
}
