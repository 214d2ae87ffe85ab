/** Archives that clients send, compressed or not. */
import { pipeline } from "node:stream";
import { createGunzip } from "node:zlib";
import { DockerError } from "../errors.ts";

/** An archive as it is uncompressed. @throws 400 for what cannot be unpacked here */
export async function* uncompressed(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const iterator = source[Symbol.asyncIterator]();
  const first = await iterator.next();
  if (first.done === true) return;
  const head = first.value;
  const rest = (async function* all(): AsyncGenerator<Buffer> {
    yield head;
    for (;;) {
      const next = await iterator.next();
      if (next.done === true) return;
      yield next.value;
    }
  })();
  if (head[0] === 0x1f && head[1] === 0x8b) {
    const gunzip = createGunzip();
    pipeline(rest, gunzip, () => undefined);
    yield* gunzip as AsyncIterable<Buffer>;
    return;
  }
  const magic = head.toString("latin1", 0, 6);
  if (
    magic.startsWith("BZh") ||
    magic.startsWith("\xfd7zXZ") ||
    magic.startsWith("\x28\xb5\x2f\xfd")
  ) {
    throw new DockerError(
      400,
      "the archive is compressed in a way that is not taken here: send tar or tar.gz",
    );
  }
  yield* rest;
}
