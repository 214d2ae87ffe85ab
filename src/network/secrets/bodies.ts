/** Bodies of requests and answers on their way: held back whole while they are short, else as streams. */
import { Transform, type Readable, type TransformCallback } from "node:stream";
import { collect } from "../../util/flow/collect.ts";
import { Replacer, type Replacement } from "./replace.ts";

/** Longest body of a known length that is held back until it is whole, in bytes. */
export const maxWhole = 1 << 20;

/** Most bytes that such a body may become: a value can be many times as long as its placeholder. */
export const maxGrown = 8 << 20;

/** Most bytes of one VM's bodies that are held back at a time. */
const maxHeld = 64 << 20;

/** How much of one VM's bodies is in memory. */
export class Room {
  private used = 0;

  /** Take so many bytes; false when there is no room. */
  take(bytes: number): boolean {
    if (this.used + bytes > maxHeld) return false;
    this.used += bytes;
    return true;
  }

  /** Give them back. */
  give(bytes: number): void {
    this.used -= bytes;
  }
}

/** What one connection has in memory of that room. */
export class Claim {
  private readonly room: Room;
  private held = 0;

  constructor(room: Room) {
    this.room = room;
  }

  /** Take so many bytes; false when there is no room. */
  take(bytes: number): boolean {
    if (!this.room.take(bytes)) return false;
    this.held += bytes;
    return true;
  }

  /** Give them back, no more than were taken. */
  give(bytes: number): void {
    const given = Math.min(bytes, this.held);
    this.held -= given;
    this.room.give(given);
  }

  /** Give all back. */
  end(): void {
    this.give(this.held);
  }
}

/** A stream with everything replaced; it breaks where a piece becomes longer than {@link maxWhole}. */
export class ReplacingStream extends Transform {
  private readonly replacer: Replacer;

  constructor(replacements: readonly Replacement[]) {
    super();
    this.replacer = new Replacer(replacements, maxWhole);
  }

  override _transform(chunk: Buffer, _encoding: string, done: TransformCallback): void {
    let replaced: Buffer;
    try {
      replaced = this.replacer.push(chunk);
    } catch (error) {
      done(error as RangeError);
      return;
    }
    done(null, replaced);
  }

  override _flush(done: TransformCallback): void {
    done(null, this.replacer.end());
  }
}

/** A body as a whole, up to a length. @throws RangeError beyond it; what the stream ends with */
export async function wholeBody(stream: Readable, limit: number): Promise<Buffer> {
  return await collect(stream, limit, () => new RangeError(`more than ${limit} bytes`));
}
