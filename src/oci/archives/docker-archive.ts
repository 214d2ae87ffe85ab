/** Archives of `docker save`: those with a manifest, and those of the time before images had one. */
import { posix } from "node:path";
import { dockerSaveSchema, legacyImageSchema, legacyTagsSchema } from "../../schema/oci.ts";
import type { Descriptor, DockerSaveManifest } from "../../schema/oci.ts";
import type { FoundManifest } from "../documents/choose.ts";
import { diffIdsOf, parseConfig } from "../documents/config.ts";
import { CONFIG_LIMIT, parseJson, validate } from "../documents/documents.ts";
import { MEDIA } from "../documents/media.ts";
import { imageError } from "../errors.ts";
import { formatReference, parseReference } from "../reference.ts";
import { isCompression } from "../../util/packing/uncompressed.ts";
import { JSON_LIMIT, packingOfMember, protectBytes, readMember, takeBlob } from "./archive-file.ts";
import type { Archive, ArchiveContext } from "./archive-file.ts";
import { archiveError } from "./tar.ts";

/** Most layers of an image without a manifest. */
const LAYER_LIMIT = 4096;

/** An image of a Docker archive. */
export interface DockerImage {
  /** As the archive has them. */
  tags: string[];
  /** Copy it into the store. */
  take(context: ArchiveContext): Promise<FoundManifest>;
}

/** Whether an archive is one of `docker save`; newer ones are OCI archives, too. */
export function isDockerArchive({ members }: Archive): boolean {
  return (
    members.has("manifest.json") || (members.has("repositories") && !members.has("index.json"))
  );
}

/** The images of a Docker archive. Throws ERR_IMAGE_ARCHIVE. */
export async function listDockerImages(archive: Archive): Promise<DockerImage[]> {
  const read = async (name: string): Promise<[value: unknown, what: string]> => {
    const bytes = await readMember(archive, name, JSON_LIMIT);
    const what = `${name} of ${archive.label}`;
    return [parseJson(bytes, "ERR_IMAGE_ARCHIVE", what), what];
  };
  if (!archive.members.has("manifest.json") && archive.members.has("repositories")) {
    const [value, what] = await read("repositories");
    const repositories = validate(legacyTagsSchema, value, "ERR_IMAGE_ARCHIVE", what);
    const tags = new Map<string, string[]>();
    for (const [repository, named] of Object.entries(repositories)) {
      for (const [tag, id] of Object.entries(named)) {
        tags.set(id, [...(tags.get(id) ?? []), `${repository}:${tag}`]);
      }
    }
    return [...tags].map(([id, of]) => ({
      tags: of,
      take: async (context) => takeLegacyImage(archive, id, context),
    }));
  }
  const [value, what] = await read("manifest.json");
  return validate(dockerSaveSchema, value, "ERR_IMAGE_ARCHIVE", what).map((entry) => ({
    tags: entry.RepoTags,
    take: async (context) => takeDockerImage(archive, entry, context),
  }));
}

/** Make an OCI manifest of one entry of `docker save`, its blobs in the store. */
async function takeDockerImage(
  archive: Archive,
  entry: DockerSaveManifest[number],
  context: ArchiveContext,
): Promise<FoundManifest> {
  const configBytes = await readMember(archive, entry.Config, CONFIG_LIMIT);
  const names = entry.Layers;
  const config = parseConfig(configBytes, names.length, archive.label);
  const layers: Descriptor[] = [];
  for (const [index, diffId] of diffIdsOf(config).entries()) {
    const name = names[index] ?? "";
    const packing = await packingOfMember(archive, name);
    // An uncompressed layer is what its DiffID says; a compressed one is checked when unpacked.
    // What layers of images are not compressed with is taken off at once.
    const kept = isCompression(packing) && packing !== "none" ? packing : undefined;
    const expected = kept === undefined ? { digest: diffId } : {};
    const off = kept === undefined ? packing : "none";
    const blob = await takeBlob(archive, name, expected, context, off);
    layers.push({
      mediaType: kept === undefined ? MEDIA.layer : `${MEDIA.layer}+${kept}`,
      ...blob,
    });
  }
  return makeManifest(configBytes, layers, context);
}

/** An OCI manifest of a configuration and layers that are in the store, put there as well. */
async function makeManifest(
  configBytes: Buffer,
  layers: Descriptor[],
  context: ArchiveContext,
): Promise<FoundManifest> {
  const { store, lease } = context;
  const configDigest = await protectBytes(configBytes, store, lease);
  const manifest = {
    schemaVersion: 2,
    mediaType: MEDIA.manifest,
    config: { mediaType: MEDIA.config, digest: configDigest, size: configBytes.length },
    layers,
  };
  const bytes = Buffer.from(JSON.stringify(manifest));
  const digest = await protectBytes(bytes, store, lease);
  return {
    digest,
    size: bytes.length,
    mediaType: MEDIA.manifest,
    manifest,
  };
}

/**
 * Make an image of the chain of layers that an identifier leads to: each has a directory with its
 * settings, its parent among them, and its archive.
 */
async function takeLegacyImage(
  archive: Archive,
  top: string,
  context: ArchiveContext,
): Promise<FoundManifest> {
  const chain: string[] = [];
  let settings: Record<string, unknown> = {};
  for (let id: string | undefined = top; id !== undefined && id !== "";) {
    if (chain.includes(id) || chain.length >= LAYER_LIMIT) {
      throw archiveError(archive.label, `The parents of its image ${top} have no end.`);
    }
    chain.push(id);
    const name: string = posix.join(id, "json");
    const what = `${name} of ${archive.label}`;
    const bytes = await readMember(archive, name, CONFIG_LIMIT);
    const value = parseJson(bytes, "ERR_IMAGE_ARCHIVE", what);
    const { parent, ...own } = validate(legacyImageSchema, value, "ERR_IMAGE_ARCHIVE", what);
    if (id === top) settings = own;
    id = parent;
  }
  const layers: Descriptor[] = [];
  for (const id of chain.toReversed()) {
    const name = posix.join(id, "layer.tar");
    const packing = await packingOfMember(archive, name);
    layers.push({
      mediaType: MEDIA.layer,
      ...(await takeBlob(archive, name, {}, context, packing)),
    });
  }
  const diffIds = layers.map((layer) => layer.digest);
  const config = { ...settings, rootfs: { type: "layers", diff_ids: diffIds } };
  const configBytes = Buffer.from(JSON.stringify(config));
  parseConfig(configBytes, layers.length, archive.label);
  return makeManifest(configBytes, layers, context);
}

/** A Docker tag as it is named in the store; undefined for one that Docker would not write. */
export function storeName(tag: string): string | undefined {
  try {
    return formatReference(parseReference(tag));
  } catch {
    // ERR_VALIDATION_IMAGE_REF: a name made by another tool; the image is kept without it.
    return undefined;
  }
}

/** The one image of an archive that a tag means, or the only one. */
export function chooseDockerImage(
  entries: readonly DockerImage[],
  tag: string | undefined,
  name: string,
): DockerImage {
  const wanted = tag === undefined ? undefined : storeName(tag);
  const matching =
    tag === undefined
      ? entries
      : entries.filter((entry) =>
          entry.tags.some((each) => each === tag || storeName(each) === wanted),
        );
  const [only, second] = matching;
  if (only !== undefined && second === undefined) return only;
  const tags = entries.flatMap((entry) => entry.tags).slice(0, 20);
  const missing = only === undefined;
  throw imageError(
    missing ? "ERR_IMAGE_NOT_FOUND" : "ERR_IMAGE_AMBIGUOUS",
    missing ? `Cannot find ${name}` : `Cannot choose an image of ${name}`,
    `The archive has the tags ${tags.join(", ") || "(none)"}.`,
    "Name one of its tags: docker-archive:FILE:NAME:TAG.",
  );
}
