/** Archives as people send them: compressed or not, which their first bytes tell. */
import { pipeline } from "node:stream";
import { createGunzip, createZstdDecompress } from "node:zlib";

/** What can be unpacked here, by its first bytes in hexadecimal. */
const KNOWN = [
  { magic: "1f8b", unpack: createGunzip },
  { magic: "28b52ffd", unpack: createZstdDecompress },
] as const;
/** What cannot: bzip2, xz. */
const UNKNOWN = ["425a68", "fd377a58"];

/** Whether bytes are the beginning of something compressed, in a known way or not. */
export function isCompressed(head: Buffer): boolean {
  const start = head.toString("hex", 0, 4);
  return [...KNOWN.map(({ magic }) => magic), ...UNKNOWN].some((magic) => start.startsWith(magic));
}

/**
 * A stream as it is uncompressed (gzip, zstd).
 * @param refuse makes the error for what is compressed in another way
 */
export async function* uncompressed(
  source: AsyncIterable<Buffer>,
  refuse: () => Error,
): AsyncGenerator<Buffer> {
  const iterator = source[Symbol.asyncIterator]();
  let head: Buffer = Buffer.alloc(0);
  while (head.length < 4) {
    const next = await iterator.next();
    if (next.done === true) break;
    head = Buffer.concat([head, next.value]);
  }
  const rest = (async function* all(): AsyncGenerator<Buffer> {
    yield head;
    yield* { [Symbol.asyncIterator]: () => iterator };
  })();
  const start = head.toString("hex", 0, 4);
  if (UNKNOWN.some((magic) => start.startsWith(magic))) throw refuse();
  const known = KNOWN.find(({ magic }) => start.startsWith(magic));
  if (known === undefined) {
    yield* rest;
    return;
  }
  const unpacked = known.unpack();
  // What goes wrong in the source ends the output with that error.
  pipeline(rest, unpacked, () => undefined);
  yield* unpacked as AsyncIterable<Buffer>;
}
