/** Decompression of blobs (util/decompress.ts), with errors about images. */
import type { Compression } from "../../model/image.ts";
import { createInflater, type ByteSink } from "../../util/decompress.ts";
import { imageError } from "../errors.ts";

/** Decompress all of a source. Throws ERR_IMAGE_LAYER_CORRUPT. @param what for messages */
export async function inflate(
  source: AsyncIterable<Uint8Array>,
  compression: Compression,
  sink: ByteSink,
  what: string,
): Promise<void> {
  const inflater = await createInflater(compression, sink);
  const guard = async (step: Promise<void>): Promise<void> => {
    try {
      await step;
    } catch (error) {
      throw decompressionError(error, compression, what);
    }
  };
  for await (const bytes of source) await guard(inflater.write(bytes));
  await guard(inflater.end());
}

/** What a failure of zlib means; other errors stay what they are. */
function decompressionError(error: unknown, compression: Compression, what: string): unknown {
  if (!(error instanceof Error)) return error;
  const code = "code" in error ? String(error.code) : "";
  const own = error.message.includes("zstd");
  if (!own && !/^(Z_|ZSTD_|ERR_ZSTD|ERR_ZLIB)/.test(code)) return error;
  return imageError(
    "ERR_IMAGE_LAYER_CORRUPT",
    `Cannot decompress ${what}`,
    `The ${compression} data is damaged or cut off: ${error.message}.`,
    "Pull or copy the image again.",
    error,
  );
}
