/**
 * boot/modules/: all modules of a kernel as one read-only disk that guests load from on demand.
 * Takes a /lib/modules/VERSION directory; gives an ext4 image with the files that kmod, busybox
 * and the guest agent look modules up in (what `depmod` makes, which hosts may lack).
 *
 * trie.ts: kmod's binary index (kmod, libkmod/libkmod-index.h): a tree over the keys' bytes, all
 * integers big-endian, nodes after their children, the root's place in the head.
 */

const MAGIC = 0xb007f457;
const VERSION = 0x00020001;
const HAS_PREFIX = 0x80000000;
const HAS_VALUES = 0x40000000;
const HAS_CHILDREN = 0x20000000;

/** One entry: keys may repeat; values of one key are ordered by priority. */
export interface IndexEntry {
  key: string;
  value: string;
  priority: number;
}

/** Bytes that grow. */
class Output {
  private bytes = Buffer.alloc(1 << 16);
  length = 0;

  /** Room for `count` more bytes. @returns where they begin */
  private take(count: number): number {
    while (this.length + count > this.bytes.length) {
      this.bytes = Buffer.concat([this.bytes, Buffer.alloc(this.bytes.length)]);
    }
    const at = this.length;
    this.length += count;
    return at;
  }

  byte(value: number): void {
    const at = this.take(1);
    this.bytes[at] = value;
  }

  number(value: number): void {
    const at = this.take(4);
    this.bytes.writeUInt32BE(value, at);
  }

  /** A NUL-terminated string. */
  text(value: string): void {
    const at = this.take(value.length + 1);
    this.bytes.write(value, at, "latin1");
    this.bytes[at + value.length] = 0;
  }

  /** All of it, with the root's place set. */
  finish(root: number): Buffer {
    this.bytes.writeUInt32BE(root, 8);
    return this.bytes.subarray(0, this.length);
  }
}

/**
 * Write the node of `entries[from … to−1]`, sorted by key, whose keys agree in their first
 * `depth` bytes. @returns its place with the flags
 */
function writeNode(
  out: Output,
  entries: IndexEntry[],
  from: number,
  to: number,
  depth: number,
): number {
  const first = entries[from]?.key ?? "";
  const last = entries[to - 1]?.key ?? "";
  // Sorted: what the first and the last have in common, all have.
  let end = depth;
  while (end < first.length && first[end] === last[end]) end++;
  let own = from;
  while (own < to && entries[own]?.key.length === end) own++;
  const children = new Map<number, number>();
  for (let at = own; at < to;) {
    const code = entries[at]?.key.charCodeAt(end) ?? 0;
    let next = at;
    while (next < to && entries[next]?.key.charCodeAt(end) === code) next++;
    children.set(code, writeNode(out, entries, at, next, end + 1));
    at = next;
  }
  let place = out.length;
  if (end > depth) {
    out.text(first.slice(depth, end));
    place += HAS_PREFIX;
  }
  if (children.size > 0) {
    const codes = [...children.keys()];
    const [low, high] = [codes[0] ?? 0, codes.at(-1) ?? 0];
    out.byte(low);
    out.byte(high);
    for (let code = low; code <= high; code++) out.number(children.get(code) ?? 0);
    place += HAS_CHILDREN;
  }
  if (own > from) {
    out.number(own - from);
    for (const { priority, value } of entries.slice(from, own)) {
      out.number(priority);
      out.text(value);
    }
    place += HAS_VALUES;
  }
  return place;
}

/**
 * kmod's binary index of these entries.
 * @param entries keys of printable ASCII characters (others are left out: kmod takes none)
 */
export function encodeIndex(entries: readonly IndexEntry[]): Buffer {
  const sorted = entries
    .filter(({ key }) => /^[ -~]*$/.test(key))
    .sort((a, b) => (a.key === b.key ? a.priority - b.priority : a.key < b.key ? -1 : 1));
  const out = new Output();
  out.number(MAGIC);
  out.number(VERSION);
  out.number(0);
  return out.finish(writeNode(out, sorted, 0, sorted.length, 0));
}
