/** Decompression of blobs and archives, with errors about images. */
import { closeSync, openSync, readSync } from "node:fs";
import type { ByteSink } from "../../util/packing/decompress.ts";
import { PACKING_HEAD, UnpackError } from "../../util/packing/packing.ts";
import { packingOfArchive, unpackArchive } from "../../util/packing/uncompressed.ts";
import type { ArchivePacking } from "../../util/packing/uncompressed.ts";
import { imageError } from "../errors.ts";

/** The first bytes of a file tell how it is packed. */
export function packingOf(path: string): ArchivePacking {
  // Synchronous for the reason that store.ts gives.
  const file = openSync(path, "r");
  try {
    const head = Buffer.alloc(PACKING_HEAD);
    return packingOfArchive(head.subarray(0, readSync(file, head, 0, PACKING_HEAD, 0)));
  } finally {
    closeSync(file);
  }
}

/**
 * Decompress all of a source; xz and bzip2 with the programs of these names.
 * Throws ERR_IMAGE_LAYER_CORRUPT, ERR_SETUP_MISSING_BINARY. @param what for messages
 */
export async function inflate(
  source: AsyncIterable<Uint8Array>,
  packing: ArchivePacking,
  sink: ByteSink,
  what: string,
): Promise<void> {
  try {
    await unpackArchive(source, packing, sink, what);
  } catch (error) {
    if (!(error instanceof UnpackError)) throw error;
    throw imageError(
      "ERR_IMAGE_LAYER_CORRUPT",
      `Cannot decompress ${what}`,
      `The ${packing} data is damaged or cut off: ${error.message}.`,
      "Pull or copy the image again.",
      error,
    );
  }
}
