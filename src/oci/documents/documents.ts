/**
 * oci/documents/: what others wrote about images, read. Takes bytes from registries, layouts and
 * archives; gives manifests, indexes and configurations, and which of them is for a platform.
 *
 * documents.ts: parsed within bounds, and refused with a reason.
 */
import type { z } from "zod";
import type { Compression, Digest, ImageConfig, Platform } from "../../model/image.ts";
import { messageOf } from "../../model/errors.ts";
import { configSchema, indexSchema, manifestSchema } from "../../schema/oci.ts";
import type { ConfigDocument, Descriptor, Index, Manifest } from "../../schema/oci.ts";
import { imageError } from "../errors.ts";
import { formatPlatform, platformScore } from "./platform.ts";

/** Largest manifest or index read, in bytes (registries must take 4 MiB). */
export const MANIFEST_LIMIT = 8 << 20;
/** Largest configuration read, in bytes. */
export const CONFIG_LIMIT = 16 << 20;

/** Media types of the documents that a pull may meet. */
export const MEDIA = {
  index: "application/vnd.oci.image.index.v1+json",
  manifest: "application/vnd.oci.image.manifest.v1+json",
  config: "application/vnd.oci.image.config.v1+json",
  layer: "application/vnd.oci.image.layer.v1.tar",
  dockerList: "application/vnd.docker.distribution.manifest.list.v2+json",
  dockerManifest: "application/vnd.docker.distribution.manifest.v2+json",
  dockerConfig: "application/vnd.docker.container.image.v1+json",
} as const;

/** Layer media types that are read. Their compression is found by the content itself. */
const LAYERS = new Set<string>([
  MEDIA.layer,
  `${MEDIA.layer}+gzip`,
  `${MEDIA.layer}+zstd`,
  "application/vnd.docker.image.rootfs.diff.tar",
  "application/vnd.docker.image.rootfs.diff.tar.gzip",
  "application/vnd.docker.image.rootfs.diff.tar.zstd",
]);

/** Validate parsed JSON against a schema. @param what e.g. `manifest of node:22` */
export function validate<S extends z.ZodType>(
  schema: S,
  value: unknown,
  code: string,
  what: string,
): z.output<S> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issues = result.error.issues
    .slice(0, 3)
    .map((issue) => `${issue.path.map(String).join(".") || "document"}: ${issue.message}`);
  throw imageError(
    code,
    `Cannot use the ${what}`,
    `It is not valid: ${issues.join("; ")}.`,
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
  const inner =
    typeof value === "object" && value !== null && "mediaType" in value
      ? String(value.mediaType)
      : undefined;
  const known = (type: string | undefined): boolean =>
    type !== undefined && (Object.values(MEDIA) as string[]).includes(type);
  // A document that claims to be two things could be read in two ways (CVE-2021-41190).
  if (inner !== undefined && known(outer) && inner !== outer) {
    throw mediaTypeError(inner, what, `It was announced as ${outer}.`);
  }
  const looksLikeIndex = typeof value === "object" && value !== null && "manifests" in value;
  const mediaType = inner ?? (known(outer) ? outer : undefined);
  switch (mediaType ?? (looksLikeIndex ? MEDIA.index : MEDIA.manifest)) {
    case MEDIA.index:
    case MEDIA.dockerList:
      return {
        kind: "index",
        index: validate(indexSchema, value, "ERR_IMAGE_MANIFEST", `index of ${what}`),
        mediaType: mediaType ?? MEDIA.index,
      };
    case MEDIA.manifest:
    case MEDIA.dockerManifest:
      return {
        kind: "manifest",
        manifest: validate(manifestSchema, value, "ERR_IMAGE_MANIFEST", `manifest of ${what}`),
        mediaType: mediaType ?? MEDIA.manifest,
      };
    default:
      throw mediaTypeError(mediaType ?? "", what);
  }
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

/** The entries of an index that best fit a platform. Throws ERR_IMAGE_PLATFORM. */
export function selectManifest(
  entries: readonly Descriptor[],
  wanted: Platform,
  what: string,
): Descriptor {
  let best: Descriptor | undefined;
  let bestScore = 0;
  for (const entry of entries) {
    // The one manifest of a one-platform layout often names no platform.
    const score =
      entry.platform === undefined
        ? entries.length === 1
          ? 1
          : 0
        : platformScore(wanted, entry.platform);
    if (score > bestScore) [best, bestScore] = [entry, score];
  }
  if (best !== undefined) return best;
  const offered = entries
    .map((entry) => entry.platform)
    .filter((platform) => platform !== undefined)
    .map(formatPlatform)
    .filter((name) => name !== "unknown/unknown");
  throw imageError(
    "ERR_IMAGE_PLATFORM",
    `Cannot use ${what} for ${formatPlatform(wanted)}`,
    offered.length === 0
      ? "Its index names no platforms."
      : `It offers only ${[...new Set(offered)].join(", ")}.`,
    "Choose another image, or one of these with --platform.",
  );
}

/** Refuse what cannot become a file system; called before any layer is fetched. */
export function checkManifest(manifest: Manifest, what: string): void {
  const configType = manifest.config.mediaType;
  if (configType !== MEDIA.config && configType !== MEDIA.dockerConfig) {
    throw imageError(
      "ERR_IMAGE_MEDIA_TYPE",
      `Cannot use ${what}`,
      `Its configuration has the media type ${JSON.stringify(configType)}: it is an artifact, not an image.`,
      "Name an image that holds a file system.",
    );
  }
  for (const layer of manifest.layers) {
    if (/foreign|nondistributable/.test(layer.mediaType)) {
      throw imageError(
        "ERR_IMAGE_FOREIGN_LAYER",
        `Cannot use ${what}`,
        `Layer ${layer.digest} is a foreign one (${layer.mediaType}): registries do not hold it, it would come from an address in the manifest.`,
        "Use an image whose layers are all in the registry (foreign layers occur in Windows images).",
      );
    }
    if (!LAYERS.has(layer.mediaType)) {
      throw imageError(
        "ERR_IMAGE_MEDIA_TYPE",
        `Cannot use ${what}`,
        `Layer ${layer.digest} has the unknown media type ${JSON.stringify(layer.mediaType)}.`,
        "Layers must be tar archives, plain or compressed with gzip or zstd.",
      );
    }
  }
  const { size } = manifest.config;
  if (size > CONFIG_LIMIT) {
    throw imageError(
      "ERR_IMAGE_TOO_LARGE",
      `Cannot use ${what}`,
      `Its configuration has ${size} bytes; at most ${CONFIG_LIMIT} are allowed.`,
      "Check that the reference names an ordinary image.",
    );
  }
}

/** Parse a configuration and check that it fits the manifest. */
export function parseConfig(bytes: Uint8Array, layers: number, what: string): ConfigDocument {
  const code = "ERR_IMAGE_CONFIG";
  const value = parseJson(bytes, code, `configuration of ${what}`);
  const config = validate(configSchema, value, code, `configuration of ${what}`);
  const count = config.rootfs.diff_ids?.length ?? 0;
  if (count !== layers) {
    throw imageError(
      code,
      `Cannot use the configuration of ${what}`,
      `It lists ${count} layers, the manifest ${layers}.`,
      "Build or push the image again with a current tool.",
    );
  }
  return config;
}

/** The digests of the uncompressed layers, bottom to top. */
export function diffIdsOf(config: ConfigDocument): Digest[] {
  return config.rootfs.diff_ids ?? [];
}

/** What of a configuration decides how a command runs. */
export function toImageConfig(document: ConfigDocument): ImageConfig {
  const config = document.config ?? {};
  return {
    env: config.Env ?? [],
    entrypoint: config.Entrypoint ?? [],
    cmd: config.Cmd ?? [],
    workingDir: config.WorkingDir ?? "",
    user: config.User ?? "",
    labels: config.Labels ?? {},
    exposedPorts: Object.keys(config.ExposedPorts ?? {}),
    volumes: Object.keys(config.Volumes ?? {}),
    ...(typeof config.StopSignal === "string" && config.StopSignal !== ""
      ? { stopSignal: config.StopSignal }
      : {}),
  };
}

/** The platform that a configuration names. */
export function platformOf(config: ConfigDocument): Platform {
  return {
    os: config.os,
    architecture: config.architecture,
    ...(config.variant === undefined || config.variant === "" ? {} : { variant: config.variant }),
  };
}

/** How content is compressed, by its first four bytes. */
export function sniffCompression(head: Uint8Array): Compression {
  const [a, b, c, d] = head;
  if (a === 0x1f && b === 0x8b) return "gzip";
  if (a === 0x28 && b === 0xb5 && c === 0x2f && d === 0xfd) return "zstd";
  // A skippable frame (0x184D2A5?) may come first.
  if (a !== undefined && (a & 0xf0) === 0x50 && b === 0x2a && c === 0x4d && d === 0x18) {
    return "zstd";
  }
  return "none";
}
