/** An archive whose digest is computed while it is read. */
import { createHash } from "node:crypto";
import type { ByteSource } from "./byte-source.ts";

/** A source that counts its bytes and computes their digest. */
export class DigestedSource implements ByteSource {
  /** Bytes given so far. */
  total = 0;
  private readonly source: ByteSource;
  private readonly check: (total: number) => void;
  private readonly hash = createHash("sha256");

  /** @param check told of the bytes so far; may throw to stop the reading */
  constructor(source: ByteSource, check: (total: number) => void) {
    this.source = source;
    this.check = check;
  }

  next(): Buffer | undefined {
    const piece = this.source.next();
    if (piece === undefined) return undefined;
    this.hash.update(piece);
    this.total += piece.length;
    this.check(this.total);
    return piece;
  }

  /** Read to the very end. @returns the digest of everything */
  end(): string {
    while (this.next() !== undefined);
    return `sha256:${this.hash.digest("hex")}`;
  }
}
