/** Decompression of blobs and archives, with errors about images. */
import { closeSync, openSync, readSync } from "node:fs";
import type { Compression } from "../../model/image.ts";
import { createInflater, type ByteSink } from "../../util/packing/decompress.ts";
import {
  PACKING_HEAD,
  UnpackError,
  detectPacking,
  unpackThrough,
} from "../../util/packing/packing.ts";
import { imageError } from "../errors.ts";

/** How images and archives of them are packed; layers of images are so only as {@link Compression}. */
export type ImagePacking = Compression | "xz" | "bzip2";

/** How content is packed, by its first bytes ({@link PACKING_HEAD} of them, if there are so many). */
export function sniffPacking(head: Uint8Array): ImagePacking {
  const packing = detectPacking(head);
  // The others' marks are so short that an archive's first name may hold them.
  return packing === "lzma" || packing === "lz4" || packing === "lzo" ? "none" : packing;
}

/** The first bytes of a file tell how it is packed. */
export function packingOf(path: string): ImagePacking {
  // Synchronous for the reason that store.ts gives.
  const file = openSync(path, "r");
  try {
    const head = Buffer.alloc(PACKING_HEAD);
    return sniffPacking(head.subarray(0, readSync(file, head, 0, PACKING_HEAD, 0)));
  } finally {
    closeSync(file);
  }
}

/** Whether a layer so packed can be used as it is. */
export function isCompression(packing: ImagePacking): packing is Compression {
  return packing !== "xz" && packing !== "bzip2";
}

/**
 * Decompress all of a source; xz and bzip2 with the programs of these names.
 * Throws ERR_IMAGE_LAYER_CORRUPT, ERR_SETUP_MISSING_BINARY. @param what for messages
 */
export async function inflate(
  source: AsyncIterable<Uint8Array>,
  packing: ImagePacking,
  sink: ByteSink,
  what: string,
): Promise<void> {
  const guard = async (step: Promise<void>): Promise<void> => {
    try {
      await step;
    } catch (error) {
      throw decompressionError(error, packing, what);
    }
  };
  if (!isCompression(packing)) return guard(unpackThrough(packing, source, sink, what));
  const inflater = await createInflater(packing, sink);
  for await (const bytes of source) await guard(inflater.write(bytes));
  await guard(inflater.end());
}

/** What a failure to decompress means; other errors stay what they are. */
function decompressionError(error: unknown, packing: ImagePacking, what: string): unknown {
  if (!(error instanceof Error)) return error;
  const code = "code" in error ? String(error.code) : "";
  const own = error instanceof UnpackError || error.message.includes("zstd");
  if (!own && !/^(Z_|ZSTD_|ERR_ZSTD|ERR_ZLIB)/.test(code)) return error;
  return imageError(
    "ERR_IMAGE_LAYER_CORRUPT",
    `Cannot decompress ${what}`,
    `The ${packing} data is damaged or cut off: ${error.message}.`,
    "Pull or copy the image again.",
    error,
  );
}
