/** Replaces byte strings in a stream, also where they lie across the borders of its pieces. Pure. */

/** What is looked for, and what stands there afterwards. */
export interface Replacement {
  from: Buffer;
  to: Buffer;
}

/** Follows one stream. */
export class Replacer {
  private readonly replacements: readonly Replacement[];
  private readonly longest: number;
  private readonly limit: number;
  /** Bytes that matches begin with. */
  private readonly firsts: ReadonlySet<number>;
  private held: Buffer = Buffer.alloc(0);

  /**
   * @param replacements of two that begin at the same place the longer one counts
   * @param limit most bytes that are given at a time; beyond it nothing is put together
   */
  constructor(replacements: readonly Replacement[], limit = Infinity) {
    this.limit = limit;
    this.replacements = [...replacements]
      .filter(({ from }) => from.length > 0)
      .sort((a, b) => b.from.length - a.from.length);
    this.longest = this.replacements[0]?.from.length ?? 0;
    this.firsts = new Set(
      this.replacements.flatMap(({ from }) => from.subarray(0, 1).toJSON().data),
    );
  }

  /**
   * Take a piece; gives what is certain by now. Only what may be the begin of a match is held back.
   * @throws RangeError beyond the limit
   */
  push(piece: Buffer): Buffer {
    return this.work(this.held.length === 0 ? piece : Buffer.concat([this.held, piece]), false);
  }

  /** All of a stream at once. @throws RangeError beyond the limit */
  whole(data: Buffer): Buffer {
    return this.work(data, true);
  }

  /** What is left at the stream's end. @throws RangeError beyond the limit */
  end(): Buffer {
    return this.work(this.held, true);
  }

  /**
   * Replace the matches that are certain: those in front of everything that may still become one. Of
   * matches that overlap the first counts.
   */
  private work(data: Buffer, isEnd: boolean): Buffer {
    const out: Buffer[] = [];
    let given = 0;
    const give = (...pieces: Buffer[]): void => {
      for (const { length } of pieces) given += length;
      if (given > this.limit) throw new RangeError(`more than ${this.limit} bytes`);
      out.push(...pieces);
    };
    // Where each is found next, so that none is looked for again in front of that.
    const next = this.replacements.map(({ from }) => data.indexOf(from));
    let open = isEnd ? data.length : this.openFrom(data, 0);
    let at = 0;
    for (;;) {
      let best = -1;
      for (const [index, place] of next.entries()) {
        if (place < 0) continue;
        const now = place < at ? data.indexOf(this.replacements[index]?.from ?? "", at) : place;
        next[index] = now;
        if (now >= 0 && (best < 0 || now < (next[best] ?? 0))) best = index;
      }
      const found = this.replacements[best];
      const place = next[best] ?? data.length;
      if (found === undefined || place >= open) {
        give(data.subarray(at, open));
        this.held = data.subarray(open);
        return Buffer.concat(out);
      }
      give(data.subarray(at, place), found.to);
      at = place + found.from.length;
      if (at > open) open = this.openFrom(data, at);
    }
  }

  /** Where the first begins that the data may not hold the end of yet, from some place on; its length when none does. */
  private openFrom(data: Buffer, from: number): number {
    for (let at = Math.max(from, data.length - this.longest + 1); at < data.length; at += 1) {
      if (!this.firsts.has(data[at] ?? 0)) continue;
      const left = data.length - at;
      for (const { from: whole } of this.replacements) {
        if (whole.length > left && whole.compare(data, at, data.length, 0, left) === 0) return at;
      }
    }
    return data.length;
  }
}

/** A whole byte string with everything replaced. @throws RangeError for more bytes than the limit */
export function replaceAll(
  data: Buffer,
  replacements: readonly Replacement[],
  limit?: number,
): Buffer {
  return new Replacer(replacements, limit).whole(data);
}

/** As {@link replaceAll}, of a text of which each character is a byte (as header fields are). */
export function replaceText(text: string, replacements: readonly Replacement[]): string {
  return replaceAll(Buffer.from(text, "latin1"), replacements).toString("latin1");
}
