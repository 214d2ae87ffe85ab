/**
 * The way from a name's document through indexes to the one manifest for a platform. What the
 * documents are read from (a registry, a directory, an archive) is the caller's affair.
 */
import type { Digest, Platform } from "../../model/image.ts";
import { VmsanError } from "../../model/errors.ts";
import type { Descriptor, IndexEntry, Manifest } from "../../schema/oci.ts";
import { imageError } from "../errors.ts";
import { parseConfig, platformOf } from "./config.ts";
import { checkManifest, parseDocument } from "./documents.ts";
import { formatPlatform, normalizePlatform, platformScore } from "./platform.ts";

/** Indexes may hold indexes; nobody nests them deeper than twice. */
const DEEPEST = 4;
/** Most entries without a platform whose configurations are looked at. */
const MOST_LOOKED_AT = 32;

/** A manifest with its own descriptor's data. */
export interface FoundManifest {
  digest: Digest;
  /** Bytes. */
  size: number;
  mediaType: string;
  manifest: Manifest;
}

/** A manifest or an index as it came, its digest verified. */
export interface RawDocument {
  bytes: Uint8Array;
  digest: Digest;
  /** As announced; may be unknown. */
  mediaType: string | undefined;
}

/** What is wanted, and how further documents are read, verified. */
export interface Choice {
  platform: Platform;
  /** The image's name for messages. */
  what: string;
  /** A manifest or an index. */
  readDocument(entry: Descriptor): Promise<Uint8Array>;
  /** A configuration. */
  readConfig(descriptor: Descriptor): Promise<Uint8Array>;
}

/** The manifest for the platform that a document is, or leads to. Throws ERR_IMAGE_*. */
export async function manifestOf(
  document: RawDocument,
  choice: Choice,
  depth = 0,
): Promise<FoundManifest> {
  const { bytes, digest } = document;
  const parsed = parseDocument(bytes, document.mediaType, choice.what);
  if (parsed.kind === "manifest") {
    const { manifest, mediaType } = parsed;
    checkManifest(manifest, choice.what);
    return { digest, size: bytes.length, mediaType, manifest };
  }
  const { manifests, unusable } = parsed.index;
  return chooseManifest(manifests, choice, unusable, depth + 1);
}

/** The manifest that an entry is, or leads to. */
export async function follow(entry: Descriptor, choice: Choice, depth = 1): Promise<FoundManifest> {
  if (depth > DEEPEST) {
    throw imageError(
      "ERR_IMAGE_MANIFEST",
      `Cannot use ${choice.what}`,
      "Its indexes are nested more than four deep.",
      "Name the digest of the image itself.",
    );
  }
  const bytes = await choice.readDocument(entry);
  if (bytes.length !== entry.size) {
    throw imageError(
      "ERR_IMAGE_DIGEST",
      `Cannot use ${choice.what}`,
      `The manifest has ${bytes.length} bytes, its index says ${entry.size}.`,
      "Push the image again with a current tool.",
    );
  }
  const { digest, mediaType } = entry;
  return manifestOf({ bytes, digest, mediaType }, choice, depth);
}

/**
 * The manifest that best fits, of several entries: by the platforms they declare, else by the
 * configurations of those that declare none. Throws ERR_IMAGE_PLATFORM when none fits.
 * @param unusable why further entries could not be read
 */
export async function chooseManifest(
  entries: readonly IndexEntry[],
  choice: Choice,
  unusable: readonly string[] = [],
  depth = 1,
): Promise<FoundManifest> {
  let best: IndexEntry | undefined;
  let bestScore = 0;
  const offered: string[] = [];
  const open: IndexEntry[] = [];
  for (const entry of entries) {
    if (entry.platform === undefined) {
      open.push(entry);
      continue;
    }
    const platform = normalizePlatform(entry.platform);
    // What belongs to an image and is none (attestations) is declared so.
    if (platform.os !== "unknown") offered.push(formatPlatform(platform));
    const score = platformScore(choice.platform, platform);
    if (score > bestScore) [best, bestScore] = [entry, score];
  }
  if (best !== undefined) return follow(best, choice, depth);
  const [only] = open;
  // The one image there is: whether it fits is said of the image itself.
  if (only !== undefined && open.length === 1 && offered.length === 0) {
    return follow(only, choice, depth);
  }
  const reasons = [...unusable];
  const found = await byConfiguration(open, choice, depth, offered, reasons);
  if (found !== undefined) return found;
  throw noneFits(choice, offered, reasons);
}

/** Of entries that declare no platform, the one whose configuration fits best. */
async function byConfiguration(
  open: readonly IndexEntry[],
  choice: Choice,
  depth: number,
  offered: string[],
  reasons: string[],
): Promise<FoundManifest | undefined> {
  let best: FoundManifest | undefined;
  let bestScore = 0;
  for (const entry of open.slice(0, MOST_LOOKED_AT)) {
    try {
      const found = await follow(entry, choice, depth);
      const { config, layers } = found.manifest;
      const document = parseConfig(await choice.readConfig(config), layers.length, choice.what);
      const platform = platformOf(document);
      offered.push(formatPlatform(platform));
      // Images made by hand may name none.
      const silent = platform.os === "" || platform.architecture === "";
      const score = silent ? 0.5 : platformScore(choice.platform, platform);
      if (score > bestScore) [best, bestScore] = [found, score];
    } catch (error) {
      // An entry that cannot be used is a reason only if no other can.
      if (!(error instanceof VmsanError)) throw error;
      reasons.push(`${entry.digest.slice(0, 19)}: ${error.why ?? error.message}`);
    }
  }
  return best;
}

/** The error for an index without an image for the platform. */
function noneFits(choice: Choice, offered: readonly string[], reasons: readonly string[]): Error {
  const offer =
    offered.length === 0
      ? "Its index names no platforms."
      : `It offers only ${[...new Set(offered)].slice(0, 20).join(", ")}.`;
  const odd =
    reasons.length === 0 ? "" : ` Entries that cannot be read: ${reasons.slice(0, 3).join("; ")}.`;
  return imageError(
    "ERR_IMAGE_PLATFORM",
    `Cannot use ${choice.what} for ${formatPlatform(choice.platform)}`,
    `${offer}${odd}`,
    "Choose another image, or one of these with --platform.",
  );
}
