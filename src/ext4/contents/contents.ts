/** Where the contents of files lie, in two columns of numbers. */
import { grow } from "../../util/file-tree/column.ts";
import { IN_INODE, type Extents } from "./extent.ts";

/** Contents by number, from 1 on; 0 is one without any blocks. */
export class Contents {
  /** Extents of all contents; those of content `n` end at `ends[n]`, where the next one's begin. */
  private table = new Float64Array(768);
  private ends = new Uint32Array(256);
  private count = 0;
  /** Extents of one content, when it has few: these arrays serve all. */
  private readonly few = Array.from({ length: IN_INODE + 1 }, (_, n) => new Float64Array(3 * n));

  /** Remember a content's extents. @returns its number; 0 when it has none */
  add(extents: Extents): number {
    if (extents.length === 0) return 0;
    const content = ++this.count;
    const from = this.ends[content - 1] ?? 0;
    const to = from + extents.length;
    if (content >= this.ends.length) this.ends = grow(this.ends, content + 1);
    if (to > this.table.length) this.table = grow(this.table, to);
    this.ends[content] = to;
    for (let i = 0; i < extents.length; i++) this.table[from + i] = extents[i] ?? 0;
    return content;
  }

  /** Where a content lies; valid until the next call when it has at most {@link IN_INODE} extents. */
  of(content: number): Extents {
    const from = content === 0 ? 0 : (this.ends[content - 1] ?? 0);
    const to = content === 0 ? 0 : (this.ends[content] ?? 0);
    const few = this.few[(to - from) / 3];
    if (few === undefined) return this.table.subarray(from, to);
    for (let i = from; i < to; i++) few[i - from] = this.table[i] ?? 0;
    return few;
  }
}
