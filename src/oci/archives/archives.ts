/**
 * oci/archives/: images as files and directories of other tools, in and out. Takes layouts,
 * archives, bare trees and what a Docker engine saves; gives images of the store, or one file.
 *
 * archives.ts: `oci-archive:` and `docker-archive:`: images in one tar file, also on standard input.
 * Only what an image needs is copied out, into the store; what is there already is not.
 */
import { rm } from "node:fs/promises";
import type { Image } from "../../model/image.ts";
import { indexSchema } from "../../schema/oci.ts";
import type { Descriptor, Index, IndexEntry } from "../../schema/oci.ts";
import type { Choice, FoundManifest } from "../documents/choose.ts";
import { CONFIG_LIMIT, MANIFEST_LIMIT, parseJson, validate } from "../documents/documents.ts";
import { imageError } from "../errors.ts";
import { parseReference } from "../reference.ts";
import { assembleImage } from "../store/assemble.ts";
import { nameOf, setName } from "../store/names.ts";
import { blobName, hexOf } from "../store/store.ts";
import { JSON_LIMIT, openArchive, readMember, spool, takeBlob } from "./archive-file.ts";
import type { Archive, ArchiveContext } from "./archive-file.ts";
import {
  chooseDockerImage,
  isDockerArchive,
  listDockerImages,
  storeName,
} from "./docker-archive.ts";
import { chooseTagged, taggedEntries } from "./layout.ts";

/** Copy one image of an OCI archive into the store: the one that these entries mean. */
async function takeOciImage(
  archive: Archive,
  entries: readonly IndexEntry[],
  unusable: readonly string[],
  context: ArchiveContext,
): Promise<FoundManifest> {
  const { store, platform } = context;
  const take = async ({ digest, size }: Descriptor): Promise<void> => {
    await takeBlob(archive, blobName(digest), { digest, size }, context);
  };
  const read = async (descriptor: Descriptor, limit: number): Promise<Buffer> => {
    await take(descriptor);
    return store.readBlob(descriptor.digest, limit);
  };
  const choice: Choice = {
    platform,
    what: archive.label,
    readDocument: async (entry) => read(entry, MANIFEST_LIMIT),
    readConfig: async (descriptor) => read(descriptor, CONFIG_LIMIT),
  };
  const found = await chooseTagged(entries, choice, unusable);
  await take(found.manifest.config);
  for (const layer of found.manifest.layers) await take(layer);
  return found;
}

/** An image of an archive, with all the names that it got. */
export interface LoadedImage extends Image {
  names: string[];
}

/** Name a taken image in the store and give it, verified. */
async function finish(
  found: FoundManifest,
  given: readonly string[],
  context: ArchiveContext,
): Promise<LoadedImage> {
  const { store, signal } = context;
  const [name = `localhost/imported:${hexOf(found.digest).slice(0, 12)}`] = given;
  const names = [...new Set(given.length === 0 ? [name] : given)];
  const image = await assembleImage(found, (digest) => store.blobPath(digest), name, store, signal);
  for (const each of names) {
    await setName(store, {
      name: each,
      digest: found.digest,
      size: found.size,
      mediaType: found.mediaType,
      platform: image.platform,
    });
  }
  return { ...image, names };
}

/** The index of an OCI archive. */
async function readOciIndex(archive: Archive): Promise<Index> {
  const bytes = await readMember(archive, "index.json", JSON_LIMIT);
  const what = `index.json of ${archive.label}`;
  const value = parseJson(bytes, "ERR_IMAGE_ARCHIVE", what);
  return validate(indexSchema, value, "ERR_IMAGE_ARCHIVE", what);
}

/** Refuse a name with a digest that is another image's. Throws ERR_IMAGE_DIGEST. */
function checkDigest(name: string, found: FoundManifest): void {
  const { digest } = parseReference(name);
  if (digest === undefined || digest === found.digest) return;
  throw imageError(
    "ERR_IMAGE_DIGEST",
    `Cannot load an image as ${name}`,
    `Its digest is ${found.digest}: under that name another image would be taken for it.`,
    "Save it again under a name with a tag.",
  );
}

/** `oci-archive:FILE[:TAG]` or `docker-archive:FILE[:TAG]`, copied into the store. */
export async function resolveArchive(
  source: { kind: "oci-archive" | "docker-archive"; path: string; tag?: string },
  name: string,
  context: ArchiveContext,
): Promise<Image> {
  const archive = await openArchive(source.path, source.path, context);
  if (source.kind === "docker-archive") {
    const image = chooseDockerImage(await listDockerImages(archive), source.tag, name);
    return finish(await image.take(context), [name], context);
  }
  const { manifests, unusable } = await readOciIndex(archive);
  const entries = taggedEntries(manifests, source.tag, name);
  return finish(await takeOciImage(archive, entries, unusable, context), [name], context);
}

/** The one image wanted of an archive. */
export interface Only {
  /** Its tag in the archive; not needed when the archive holds one image. */
  tag?: string;
}

/**
 * Load every image of an archive that comes as a stream, whichever of the two kinds it is,
 * and name them as the archive does.
 * @param only take one image instead of all
 */
export async function loadArchive(
  stream: AsyncIterable<Uint8Array>,
  label: string,
  context: ArchiveContext,
  only?: Only,
): Promise<LoadedImage[]> {
  const path = await spool(stream, label, context);
  const what = only?.tag === undefined ? label : `${only.tag} in ${label}`;
  try {
    const archive = await openArchive(path, label, context);
    const images: LoadedImage[] = [];
    if (isDockerArchive(archive)) {
      const all = await listDockerImages(archive);
      for (const image of only === undefined ? all : [chooseDockerImage(all, only.tag, what)]) {
        const names = image.tags.map(storeName).filter((name) => name !== undefined);
        const found = await image.take(context);
        for (const name of names) checkDigest(name, found);
        images.push(await finish(found, names, context));
      }
      return images;
    }
    const { manifests, unusable } = await readOciIndex(archive);
    const wanted =
      only === undefined
        ? manifests.map((entry) => [entry])
        : [taggedEntries(manifests, only.tag, what)];
    for (const entries of wanted) {
      const found = await takeOciImage(archive, entries, unusable, context);
      const tag = entries.map(nameOf).find((name) => name !== undefined);
      // A bare tag ("22") names no repository; only full names are taken over.
      const full = tag !== undefined && /[/:]/.test(tag) ? storeName(tag) : undefined;
      if (full !== undefined) checkDigest(full, found);
      images.push(await finish(found, full === undefined ? [] : [full], context));
    }
    return images;
  } finally {
    await rm(path, { force: true });
  }
}
