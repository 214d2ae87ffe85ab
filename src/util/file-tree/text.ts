/** Short byte strings, one behind the other in one buffer; each is known by its offset. */
import { grow } from "./column.ts";

/** Bytes of the length in front of each string. */
const PREFIX = 2;

/** An arena of byte strings (latin1) of at most 65,535 bytes. Offset 0 is the empty string. */
export class Text {
  /** All bytes; replaced when it grows. */
  bytes: Uint8Array = new Uint8Array(4096);
  private end = PREFIX;

  /**
   * Put a string behind all others without keeping it: the next one takes its place unless
   * {@link keep} is called. @returns its offset
   */
  stage(value: string): number {
    const { length } = value;
    const at = this.end;
    this.bytes = grow(this.bytes, at + PREFIX + length);
    const { bytes } = this;
    bytes[at] = length & 0xff;
    bytes[at + 1] = length >>> 8;
    for (let i = 0; i < length; i++) bytes[at + PREFIX + i] = value.charCodeAt(i);
    return at;
  }

  /** Keep the string staged at this offset; no effect on one that is kept already. */
  keep(at: number): number {
    if (at === this.end) this.end = this.start(at) + this.length(at);
    return at;
  }

  /** Keep a string. @returns its offset */
  add(value: string): number {
    return value === "" ? 0 : this.keep(this.stage(value));
  }

  /** Bytes of the string at an offset. */
  length(at: number): number {
    return (this.bytes[at] ?? 0) | ((this.bytes[at + 1] ?? 0) << 8);
  }

  /** Where in {@link bytes} the string itself begins. */
  start(at: number): number {
    return at + PREFIX;
  }

  /** The string at an offset. */
  get(at: number): string {
    const from = this.start(at);
    const { buffer, byteOffset } = this.bytes;
    return Buffer.from(buffer, byteOffset + from, this.length(at)).toString("latin1");
  }

  /** Are the strings at two offsets the same? */
  same(a: number, b: number): boolean {
    if (a === b) return true;
    const { bytes } = this;
    const end = PREFIX + this.length(a);
    // The length is part of what is compared.
    for (let i = 0; i < end; i++) if (bytes[a + i] !== bytes[b + i]) return false;
    return true;
  }
}
