/**
 * oci/documents/: what others wrote about images, read. Takes bytes from registries, layouts and
 * archives; gives manifests, indexes and configurations, and which of them is for a platform.
 *
 * documents.ts: manifests and indexes, parsed within bounds, and refused with a reason.
 */
import type { z } from "zod";
import { messageOf } from "../../model/errors.ts";
import { describeIssues, indexSchema, manifestSchema } from "../../schema/oci.ts";
import type { Index, Manifest } from "../../schema/oci.ts";
import { imageError } from "../errors.ts";
import { MEDIA, isEncrypted, kindOf, mayBeConfig, mayBeLayer, plainMediaType } from "./media.ts";

/** Largest manifest or index read, in bytes (registries must take 4 MiB). */
export const MANIFEST_LIMIT = 8 << 20;
/** Largest configuration read, in bytes. */
export const CONFIG_LIMIT = 16 << 20;

/** Validate parsed JSON against a schema. @param what e.g. `manifest of node:22` */
export function validate<S extends z.ZodType>(
  schema: S,
  value: unknown,
  code: string,
  what: string,
): z.output<S> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw imageError(
    code,
    `Cannot use the ${what}`,
    `It is not valid: ${describeIssues(result.error)}.`,
    "Build or push the image again with a current tool.",
  );
}

/** Parse JSON from outside. */
export function parseJson(bytes: Uint8Array, code: string, what: string): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes)) as unknown;
  } catch (error) {
    throw imageError(
      code,
      `Cannot use the ${what}`,
      `It is not JSON: ${messageOf(error)}.`,
      "Pull or copy the image again; if it stays so, it was pushed broken.",
      error,
    );
  }
}

/** A manifest or an index, whichever it was. */
export type Document =
  | { kind: "manifest"; manifest: Manifest; mediaType: string }
  | { kind: "index"; index: Index; mediaType: string };

/** Whether a field of a document holds something. */
function holds(value: object, field: string): boolean {
  const held = (value as Record<string, unknown>)[field];
  return held !== undefined && held !== null;
}

/**
 * Parse a manifest or an index.
 * @param outer media type according to the descriptor or the Content-Type; may be unknown
 */
export function parseDocument(
  bytes: Uint8Array,
  outer: string | undefined,
  what: string,
): Document {
  const value = parseJson(bytes, "ERR_IMAGE_MANIFEST", `manifest of ${what}`);
  const fields: object = typeof value === "object" && value !== null ? value : {};
  const inner =
    "mediaType" in fields && typeof fields.mediaType === "string" ? fields.mediaType : "";
  const announced = kindOf(outer ?? "");
  const own = kindOf(inner);
  // A document that could be read in two ways is read in none (CVE-2021-41190).
  if (own !== undefined && announced !== undefined && own !== announced) {
    throw mediaTypeError(inner, what, `It was announced as ${plainMediaType(outer)}.`);
  }
  const like = {
    index: holds(fields, "manifests"),
    manifest: holds(fields, "config") || holds(fields, "layers"),
  };
  if (like.index && like.manifest) {
    throw mediaTypeError(inner, what, "It has the parts of a manifest and of an index.");
  }
  if (holds(fields, "fsLayers")) throw mediaTypeError(inner || "schema 1: manifest.v1", what);
  const kind = own ?? announced ?? (like.index ? "index" : like.manifest ? "manifest" : undefined);
  if (kind === "index") {
    return {
      kind,
      index: validate(indexSchema, value, "ERR_IMAGE_MANIFEST", `index of ${what}`),
      mediaType: typeFor(kind, inner, outer),
    };
  }
  if (kind === "manifest") {
    return {
      kind,
      manifest: validate(manifestSchema, value, "ERR_IMAGE_MANIFEST", `manifest of ${what}`),
      mediaType: typeFor(kind, inner, outer),
    };
  }
  throw mediaTypeError(inner || plainMediaType(outer), what);
}

/** The media type of a document of that kind: its own, else the announced one, else OCI's. */
function typeFor(kind: "manifest" | "index", inner: string, outer: string | undefined): string {
  if (kindOf(inner) !== undefined) return plainMediaType(inner);
  return kindOf(outer ?? "") === undefined ? MEDIA[kind] : plainMediaType(outer);
}

/** The error for a document of another kind. */
function mediaTypeError(mediaType: string, what: string, more = ""): Error {
  const old = mediaType.includes("manifest.v1");
  return imageError(
    "ERR_IMAGE_MEDIA_TYPE",
    `Cannot use ${what}`,
    `Its manifest has the media type ${JSON.stringify(mediaType)}. ${more}`.trim(),
    old
      ? "It has Docker's schema 1, which nobody supports any more: push it again with a current tool."
      : "Only OCI image manifests and indexes and Docker's schema 2 can be used.",
  );
}

/** Refuse what cannot become a file system; called before any layer is fetched. */
export function checkManifest(manifest: Manifest, what: string): void {
  const refuse = (why: string, fix: string): Error =>
    imageError("ERR_IMAGE_MEDIA_TYPE", `Cannot use ${what}`, why, fix);
  const { mediaType, size } = manifest.config;
  if (!mayBeConfig(mediaType)) {
    throw refuse(
      `Its configuration has the media type ${JSON.stringify(mediaType)}: it is an artifact, not an image.`,
      "Name an image that holds a file system.",
    );
  }
  for (const layer of manifest.layers) {
    if (mayBeLayer(layer.mediaType)) continue;
    throw isEncrypted(layer.mediaType)
      ? refuse(
          `Layer ${layer.digest} is encrypted (${layer.mediaType}).`,
          "Decrypt it first: skopeo copy --decryption-key KEY docker://… oci:DIR:TAG.",
        )
      : refuse(
          `Layer ${layer.digest} has the unknown media type ${JSON.stringify(layer.mediaType)}.`,
          "Layers must be tar archives, plain or compressed with gzip or zstd.",
        );
  }
  if (size > CONFIG_LIMIT) {
    throw imageError(
      "ERR_IMAGE_TOO_LARGE",
      `Cannot use ${what}`,
      `Its configuration has ${size} bytes; at most ${CONFIG_LIMIT} are allowed.`,
      "Check that the reference names an ordinary image.",
    );
  }
}
