/** Errors about layers: they come from images, so they name the layer and the entry. */
import { createHash } from "node:crypto";
import { closeSync, openSync, readSync } from "node:fs";
import type { LayerBlob } from "../model/image.ts";
import { VmsanError } from "../model/errors.ts";

/** A byte string (latin1) as people read it: UTF-8 where it is UTF-8. */
export function readable(name: string): string {
  return JSON.stringify(Buffer.from(name, "latin1").toString("utf8"));
}

/** A layer's content is wrong. */
export function layerError(what: string, message: string, why: string, fix?: string): VmsanError {
  return new VmsanError({
    code: `ERR_LAYER_${what}`,
    message,
    why,
    fix: fix ?? "Build or pull the image again; if it stays, the image itself is broken.",
  });
}

/** The error for an image beyond the limits. */
export function tooMany(what: string): VmsanError {
  return layerError(
    "LIMIT",
    "Cannot use the image",
    `Its layers hold ${what}.`,
    "Use another image.",
  );
}

/** Digest of a file's content. */
function digestOf(path: string): string {
  const hash = createHash("sha256");
  const buffer = Buffer.allocUnsafe(1 << 20);
  const fd = openSync(path, "r");
  try {
    for (;;) {
      const count = readSync(fd, buffer, 0, buffer.length, null);
      if (count === 0) return `sha256:${hash.digest("hex")}`;
      hash.update(buffer.subarray(0, count));
    }
  } finally {
    closeSync(fd);
  }
}

/** The error for a file that is not the one that the manifest names. */
export function otherFile(blob: LayerBlob, found: string): VmsanError {
  return layerError(
    "DIGEST",
    `Cannot use the layer ${blob.digest}`,
    `The file ${blob.path} is another one: ${found}.`,
    "Remove the image and pull it again.",
  );
}

/**
 * Why a layer could not be read: that its file is not the one that the manifest names, where that
 * is so; else what was found.
 */
export function causeOf(error: unknown, blob: LayerBlob): unknown {
  let found: string;
  try {
    found = digestOf(blob.path);
  } catch {
    // It cannot be read, or is not there yet: what has been found says it, or the reader of it will.
    return error;
  }
  return found === blob.digest ? error : otherFile(blob, found);
}
