/** Streams that are wanted whole. */

/**
 * Everything that comes, up to a length.
 * @param limit in bytes
 * @param tooLong makes the error for what is longer; the stream is broken off
 */
export async function collect(
  stream: AsyncIterable<Uint8Array>,
  limit: number,
  tooLong: () => Error,
): Promise<Buffer> {
  const pieces: Uint8Array[] = [];
  let size = 0;
  for await (const piece of stream) {
    size += piece.length;
    if (size > limit) throw tooLong();
    pieces.push(piece);
  }
  return Buffer.concat(pieces);
}
