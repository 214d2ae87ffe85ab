/** Content codings (RFC 9110, section 8.4). */
import type { Transform } from "node:stream";
import zlib from "node:zlib";

/** A stream that takes one coding off; undefined for a coding that is not known. */
export function decoderOf(coding: string): Transform | undefined {
  switch (coding) {
    case "gzip":
    case "x-gzip":
      return zlib.createGunzip();
    case "deflate":
      return zlib.createInflate();
    case "br":
      return zlib.createBrotliDecompress();
    case "zstd":
      return zlib.createZstdDecompress();
    default:
      return undefined;
  }
}
