/**
 * oci/archives/: images as files and directories of other tools, in and out. Takes layouts,
 * archives, bare trees and what a Docker engine saves; gives images of the store, or one file.
 *
 * archives.ts: `oci-archive:` and `docker-archive:`: images in one tar file, also on standard input.
 * Only what an image needs is copied out, into the store; what is there already is not.
 */
import { createReadStream } from "node:fs";
import { open, rm, stat } from "node:fs/promises";
import { posix } from "node:path";
import type { Digest, Image, Platform } from "../../model/image.ts";
import { errnoOf } from "../../model/errors.ts";
import { dockerSaveSchema, indexSchema } from "../../schema/oci.ts";
import type { Descriptor, DockerSaveManifest, Index, IndexEntry } from "../../schema/oci.ts";
import { PACKING_HEAD } from "../../util/packing.ts";
import { assembleImage } from "../store/assemble.ts";
import type { ImagePacking } from "../store/decompress.ts";
import { inflate, isCompression, packingOf, sniffPacking } from "../store/decompress.ts";
import type { Choice, FoundManifest } from "../documents/choose.ts";
import { diffIdsOf, parseConfig } from "../documents/config.ts";
import { CONFIG_LIMIT, MANIFEST_LIMIT, parseJson, validate } from "../documents/documents.ts";
import { MEDIA } from "../documents/media.ts";
import { imageError } from "../errors.ts";
import { FileWriter, ingest } from "../store/ingest.ts";
import { chooseTagged, taggedEntries } from "./layout.ts";
import type { Lease } from "../store/leases.ts";
import { nameOf, setName } from "../store/names.ts";
import { formatReference, parseReference } from "../reference.ts";
import { digestOf, hexOf, temporaryName } from "../store/store.ts";
import type { ContentStore } from "../store/store.ts";
import { archiveError, cleanName, listTar } from "./tar.ts";
import type { Member } from "./tar.ts";

/** Largest JSON member read into memory, in bytes. */
const JSON_LIMIT = 64 << 20;

/** What every reader of archives needs. */
export interface ArchiveContext {
  store: ContentStore;
  lease: Lease;
  platform: Platform;
  signal?: AbortSignal;
}

/** An open archive and its table of contents. */
interface Archive {
  /** The file read, perhaps a decompressed copy. */
  path: string;
  /** What the user calls it. */
  label: string;
  members: Map<string, Member>;
}

/** Bytes of a file from one offset on. */
function readRange(path: string, offset: number, size: number): AsyncIterable<Uint8Array> {
  if (size === 0) return (async function* nothing() {})();
  return createReadStream(path, { start: offset, end: offset + size - 1, highWaterMark: 1 << 20 });
}

/** Follow links among members; archives of old `docker save` link equal layers. */
function findMember(archive: Archive, name: string): Member {
  let at = cleanName(name);
  let fromRoot = at;
  for (let hops = 0; hops < 16; hops += 1) {
    // Docker follows a link that leads nowhere from its own place from the root.
    const member = archive.members.get(at) ?? archive.members.get(fromRoot);
    if (member === undefined) break;
    if (member.type === "file") return member;
    if (member.type === "other") break;
    fromRoot = cleanName(posix.normalize(posix.join("/", member.target)));
    at = cleanName(
      member.type === "link"
        ? member.target
        : posix.normalize(posix.join(posix.dirname(at), member.target)),
    );
  }
  throw archiveError(archive.label, `It has no member ${JSON.stringify(name)}.`);
}

/** A member's content in memory. */
async function readMember(archive: Archive, name: string, limit: number): Promise<Buffer> {
  const member = findMember(archive, name);
  if (member.size > limit) {
    throw archiveError(archive.label, `Its member ${name} has ${member.size} bytes.`);
  }
  const parts: Uint8Array[] = [];
  for await (const part of readRange(archive.path, member.offset, member.size)) parts.push(part);
  return Buffer.concat(parts);
}

/** Write a stream to a temporary file of the lease, decompressing it on the way. */
async function spool(
  source: AsyncIterable<Uint8Array>,
  label: string,
  context: ArchiveContext,
): Promise<string> {
  const path = temporaryName(context.lease.dir, "archive");
  const handle = await open(path, "wx");
  try {
    const writer = new FileWriter(handle, 0);
    const iterator = source[Symbol.asyncIterator]();
    let head = Buffer.alloc(0);
    let ended = false;
    while (head.length < PACKING_HEAD && !ended) {
      const next = await iterator.next();
      if (next.done === true) ended = true;
      else head = Buffer.concat([head, next.value]);
    }
    const rest = (async function* all() {
      yield head;
      for (;;) {
        context.signal?.throwIfAborted();
        const next = await iterator.next();
        if (next.done === true) return;
        yield next.value;
      }
    })();
    await inflate(rest, sniffPacking(head), (bytes) => writer.write(bytes), label);
    await writer.drain();
  } finally {
    await handle.close();
  }
  return path;
}

/** Open an archive file; a compressed one is decompressed to a temporary file first. */
async function openArchive(path: string, label: string, context: ArchiveContext): Promise<Archive> {
  let plain = path;
  try {
    if ((await stat(path)).isDirectory()) throw archiveError(label, "It is a directory.");
    if (packingOf(path) !== "none") {
      plain = await spool(createReadStream(path), label, context);
    }
  } catch (error) {
    if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ENOTDIR") {
      throw imageError(
        "ERR_IMAGE_NOT_FOUND",
        `Cannot read the image archive ${path}`,
        "There is no such file.",
        "Check the path.",
        error,
      );
    }
    throw error;
  }
  const handle = await open(plain, "r");
  try {
    const { size } = await handle.stat();
    return { path: plain, label, members: await listTar(handle, size, label) };
  } finally {
    await handle.close();
  }
}

/** Copy a member into the store as a blob, unless it is there. @param packing taken off on the way */
async function takeBlob(
  archive: Archive,
  name: string,
  expected: { digest?: Digest; size?: number },
  context: ArchiveContext,
  packing: ImagePacking = "none",
): Promise<{ digest: Digest; size: number }> {
  const { store, lease, signal } = context;
  const member = findMember(archive, name);
  const { digest } = expected;
  if (digest !== undefined) {
    await lease.protect([digest]);
    const path = store.blobPath(digest);
    const size = await store.blobSize(digest);
    const whole = size !== undefined && (packing !== "none" || size === member.size);
    if (whole && (await store.isVerified(path, digest, signal)) !== undefined) {
      return { digest, size };
    }
    await store.discard(digest);
  }
  const source = readRange(archive.path, member.offset, member.size);
  return ingest(store, lease, source, expected, `${name} of ${archive.label}`, signal, packing);
}

/** Where a layout keeps a blob. */
export function blobName(digest: Digest): string {
  return `blobs/sha256/${hexOf(digest)}`;
}

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

/** Make an OCI manifest of one entry of `docker save`, its blobs in the store. */
async function takeDockerImage(
  archive: Archive,
  entry: DockerSaveManifest[number],
  context: ArchiveContext,
): Promise<FoundManifest> {
  const { store, lease } = context;
  const configBytes = await readMember(archive, entry.Config, CONFIG_LIMIT);
  const names = entry.Layers;
  const config = parseConfig(configBytes, names.length, archive.label);
  const layers: Descriptor[] = [];
  for (const [index, diffId] of diffIdsOf(config).entries()) {
    const name = names[index] ?? "";
    const member = findMember(archive, name);
    const head: Uint8Array[] = [];
    const headSize = Math.min(PACKING_HEAD, member.size);
    for await (const part of readRange(archive.path, member.offset, headSize)) head.push(part);
    const packing = sniffPacking(Buffer.concat(head));
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

/** Store bytes as a blob that the lease protects from the start. */
export async function protectBytes(
  bytes: Buffer,
  store: ContentStore,
  lease: Lease,
): Promise<Digest> {
  await lease.protect([digestOf(bytes)]);
  return store.putBytes(bytes);
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

/** The table of contents of a Docker archive. */
async function readDockerManifest(archive: Archive): Promise<DockerSaveManifest> {
  const bytes = await readMember(archive, "manifest.json", JSON_LIMIT);
  const what = `manifest.json of ${archive.label}`;
  const value = parseJson(bytes, "ERR_IMAGE_ARCHIVE", what);
  return validate(dockerSaveSchema, value, "ERR_IMAGE_ARCHIVE", what);
}

/** The index of an OCI archive. */
async function readOciIndex(archive: Archive): Promise<Index> {
  const bytes = await readMember(archive, "index.json", JSON_LIMIT);
  const what = `index.json of ${archive.label}`;
  const value = parseJson(bytes, "ERR_IMAGE_ARCHIVE", what);
  return validate(indexSchema, value, "ERR_IMAGE_ARCHIVE", what);
}

/** A Docker tag as it is named in the store; undefined for one that Docker would not write. */
function storeName(tag: string): string | undefined {
  try {
    return formatReference(parseReference(tag));
  } catch {
    // ERR_VALIDATION_IMAGE_REF: a name made by another tool; the image is kept without it.
    return undefined;
  }
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

/** The one image of an archive that a tag means, or the only one. */
function chooseDockerEntry(
  entries: DockerSaveManifest,
  tag: string | undefined,
  name: string,
): DockerSaveManifest[number] {
  const wanted = tag === undefined ? undefined : storeName(tag);
  const matching =
    tag === undefined
      ? entries
      : entries.filter((entry) =>
          entry.RepoTags.some((each) => each === tag || storeName(each) === wanted),
        );
  const [only, second] = matching;
  if (only !== undefined && second === undefined) return only;
  const tags = entries.flatMap((entry) => entry.RepoTags).slice(0, 20);
  const missing = only === undefined;
  throw imageError(
    missing ? "ERR_IMAGE_NOT_FOUND" : "ERR_IMAGE_AMBIGUOUS",
    missing ? `Cannot find ${name}` : `Cannot choose an image of ${name}`,
    `The archive has the tags ${tags.join(", ") || "(none)"}.`,
    "Name one of its tags: docker-archive:FILE:NAME:TAG.",
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
    const entries = await readDockerManifest(archive);
    const entry = chooseDockerEntry(entries, source.tag, name);
    return finish(await takeDockerImage(archive, entry, context), [name], context);
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
    if (archive.members.has("manifest.json")) {
      const all = await readDockerManifest(archive);
      for (const entry of only === undefined ? all : [chooseDockerEntry(all, only.tag, what)]) {
        const names = entry.RepoTags.map(storeName).filter((name) => name !== undefined);
        const found = await takeDockerImage(archive, entry, context);
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
