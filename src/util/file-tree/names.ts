/** Names by their parents, in a hash table without objects: some 30 bytes a name and its text. */
import { randomFillSync } from "node:crypto";
import { grow } from "./column.ts";
import type { Text } from "./text.ts";

/** What bytes count in the hash: random, so that no archive can be made to collide. */
const WEIGHTS = randomFillSync(new Uint32Array(256));

/** Names with parents. A name's number is ≥ 1; 0 stands for none (and for a root, as a parent). */
export class NameTable {
  readonly text: Text;
  /** Numbers given out so far, removed ones included. */
  count = 0;
  /** By number: the parent, and the name's offset in {@link text}. */
  parents = new Uint32Array(256);
  names = new Uint32Array(256);
  /** Next number of the same bucket. */
  private chain = new Uint32Array(256);
  private heads = new Uint32Array(256);

  constructor(text: Text) {
    this.text = text;
  }

  private bucket(parent: number, name: number): number {
    const { bytes } = this.text;
    const start = this.text.start(name);
    const end = start + this.text.length(name);
    let hash = Math.imul(parent, 0x9e3779b1);
    for (let at = start; at < end; at++) {
      hash = Math.imul(hash ^ (WEIGHTS[bytes[at] ?? 0] ?? 0), 0x85ebca6b);
      hash ^= hash >>> 15;
    }
    hash = Math.imul(hash, 0xc2b2ae35);
    return (hash ^ (hash >>> 16)) & (this.heads.length - 1);
  }

  /** The number of a name (an offset in the text, kept or staged); 0 when it is not there. */
  find(parent: number, name: number): number {
    return this.findIn(this.bucket(parent, name), parent, name);
  }

  /** The number of a name, which is added where it is not there. @param mayAdd called before; may throw */
  findOrAdd(parent: number, name: number, mayAdd: () => void): number {
    const bucket = this.bucket(parent, name);
    const known = this.findIn(bucket, parent, name);
    if (known !== 0) return known;
    mayAdd();
    return this.addTo(bucket, parent, name);
  }

  private findIn(bucket: number, parent: number, name: number): number {
    const { parents, names, chain, text } = this;
    let at = this.heads[bucket] ?? 0;
    while (at !== 0 && !(parents[at] === parent && text.same(names[at] ?? 0, name))) {
      at = chain[at] ?? 0;
    }
    return at;
  }

  /** Add a name that is not there. @returns its number */
  add(parent: number, name: number): number {
    return this.addTo(this.bucket(parent, name), parent, name);
  }

  private addTo(bucket: number, parent: number, name: number): number {
    const number = ++this.count;
    if (number >= this.parents.length) {
      this.parents = grow(this.parents, number + 1);
      this.names = grow(this.names, number + 1);
      this.chain = grow(this.chain, number + 1);
    }
    this.parents[number] = parent;
    this.names[number] = this.text.keep(name);
    if (number > this.heads.length) this.spread();
    else {
      this.chain[number] = this.heads[bucket] ?? 0;
      this.heads[bucket] = number;
    }
    return number;
  }

  /** Forget a name; its number is not used again. */
  remove(number: number): void {
    const bucket = this.bucket(this.parents[number] ?? 0, this.names[number] ?? 0);
    const next = this.chain[number] ?? 0;
    if (this.heads[bucket] === number) this.heads[bucket] = next;
    else {
      let before = this.heads[bucket] ?? 0;
      while (this.chain[before] !== number) before = this.chain[before] ?? 0;
      this.chain[before] = next;
    }
    // A number in no bucket is its own successor.
    this.chain[number] = number;
  }

  private enter(number: number): void {
    const bucket = this.bucket(this.parents[number] ?? 0, this.names[number] ?? 0);
    this.chain[number] = this.heads[bucket] ?? 0;
    this.heads[bucket] = number;
  }

  /** Twice the buckets. */
  private spread(): void {
    this.heads = new Uint32Array(2 * this.heads.length);
    this.chain[this.count] = 0;
    for (let number = 1; number <= this.count; number++) {
      if (this.chain[number] !== number) this.enter(number);
    }
  }
}
