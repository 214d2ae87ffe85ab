/** Errors about layers: they come from images, so they name the layer and the entry. */
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
