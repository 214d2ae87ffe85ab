/** Where archive bytes come from, piece by piece, synchronously. */

/** A stream of bytes. */
export interface ByteSource {
  /** The next piece, valid until the following call; undefined at the end. Never empty. */
  next(): Buffer | undefined;
  /** Leave out so many bytes behind the present piece; where it is missing they are read. */
  skip?(bytes: number): void;
}

/** Bytes that are in memory already, in pieces of at most `pieceSize`. */
export function memorySource(bytes: Buffer, pieceSize = 65_536): ByteSource {
  let at = 0;
  return {
    next() {
      if (at >= bytes.length) return undefined;
      const piece = bytes.subarray(at, at + pieceSize);
      at += piece.length;
      return piece;
    },
  };
}
