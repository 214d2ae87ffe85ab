/** Archives as people send them: compressed or not, which their first bytes tell. */
import { once } from "node:events";
import { PassThrough } from "node:stream";
import type { Compression } from "../../model/image.ts";
import { VmsanError, asVmsanError, messageOf } from "../../model/errors.ts";
import { createInflater } from "./decompress.ts";
import type { ByteSink } from "./decompress.ts";
import { PACKING_HEAD, UnpackError, detectPacking, unpackThrough } from "./packing.ts";

/** How archives are packed; layers of images are so only as {@link Compression}. */
export type ArchivePacking = Compression | "xz" | "bzip2";

/** How an archive is packed, by its first bytes ({@link PACKING_HEAD} of them, if there are so many). */
export function packingOfArchive(head: Uint8Array): ArchivePacking {
  const packing = detectPacking(head);
  // The others' marks are so short that an archive's first name may hold them.
  return packing === "lzma" || packing === "lz4" || packing === "lzo" ? "none" : packing;
}

/** Whether a packing needs no program. */
export function isCompression(packing: ArchivePacking): packing is Compression {
  return packing !== "xz" && packing !== "bzip2";
}

async function guard(step: Promise<void>): Promise<void> {
  try {
    await step;
  } catch (error) {
    if (!(error instanceof Error) || error instanceof UnpackError) throw error;
    const code = "code" in error ? String(error.code) : "";
    const own = error.message.includes("zstd") || /^(Z_|ZSTD_|ERR_ZSTD|ERR_ZLIB)/.test(code);
    throw own ? new UnpackError(error.message, { cause: error }) : error;
  }
}

/**
 * Uncompress all of a source: of gzip and zstd all parts, xz and bzip2 with the programs of these names.
 * Throws UnpackError for data that is damaged or cut off, ERR_SETUP_MISSING_BINARY, and the source's and the sink's own.
 * @param what for messages
 */
export async function unpackArchive(
  source: AsyncIterable<Uint8Array>,
  packing: ArchivePacking,
  sink: ByteSink,
  what: string,
  signal?: AbortSignal,
): Promise<void> {
  if (!isCompression(packing)) return await unpackThrough(packing, source, sink, what, signal);
  const inflater = await createInflater(packing, sink);
  for await (const bytes of source) await guard(inflater.write(bytes));
  await guard(inflater.end());
}

/** The first bytes of a stream, and all of it. */
async function peek(
  source: AsyncIterable<Buffer>,
): Promise<{ head: Buffer; whole: AsyncIterable<Buffer> }> {
  const iterator = source[Symbol.asyncIterator]();
  let head: Buffer = Buffer.alloc(0);
  while (head.length < PACKING_HEAD) {
    const next = await iterator.next();
    if (next.done === true) break;
    head = Buffer.concat([head, next.value]);
  }
  const whole = (async function* all(): AsyncGenerator<Buffer> {
    yield head;
    yield* { [Symbol.asyncIterator]: () => iterator };
  })();
  return { head, whole };
}

/**
 * A stream as it is uncompressed.
 * @throws ERR_VALIDATION_ARCHIVE for what is damaged or cut off, ERR_SETUP_MISSING_BINARY
 */
export async function* uncompressed(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const { head, whole } = await peek(source);
  const packing = packingOfArchive(head);
  if (packing === "none") {
    yield* whole;
    return;
  }
  const out = new PassThrough();
  const leaving = new AbortController();
  const { signal } = leaving;
  const sink = async (bytes: Buffer): Promise<void> => {
    // The bytes' buffer is used again.
    if (!out.write(Buffer.from(bytes))) await once(out, "drain", { signal });
  };
  unpackArchive(whole, packing, sink, "the archive", signal).then(
    () => out.end(),
    (error: unknown) =>
      out.destroy(asVmsanError(damage(error, packing), "Cannot read the archive")),
  );
  try {
    yield* out as AsyncIterable<Buffer>;
  } finally {
    leaving.abort();
  }
}

function damage(error: unknown, packing: ArchivePacking): unknown {
  if (!(error instanceof UnpackError)) return error;
  return new VmsanError(
    {
      code: "ERR_VALIDATION_ARCHIVE",
      message: "Cannot uncompress the archive",
      why: `The ${packing} data is damaged or cut off: ${messageOf(error)}`,
      fix: "Send it again, or as a plain tar.",
    },
    error,
  );
}
