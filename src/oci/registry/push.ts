/** An image of the store to a registry: its layers and configuration, then its manifest. */
import { asPhase } from "../../util/flow/phases.ts";
import type { Digest, ImageReference, Platform } from "../../model/image.ts";
import type { ProgressSink } from "../../model/progress.ts";
import { MANIFEST_LIMIT } from "../documents/documents.ts";
import { MEDIA, isNonDistributable } from "../documents/media.ts";
import { imageError } from "../errors.ts";
import { PullFailure, safeUrl } from "../http/failure.ts";
import type { Transport } from "../http/transport.ts";
import { formatReference, parseReference } from "../reference.ts";
import { assembleImage, blobsOf, findManifest } from "../store/assemble.ts";
import { withLease } from "../store/leases.ts";
import { findImage, manifestOf } from "../store/manage.ts";
import { listNames } from "../store/names.ts";
import type { ContentStore } from "../store/store.ts";
import { shortDigest } from "./download.ts";
import { inParallel } from "./parallel.ts";
import { transportFor } from "./pull.ts";
import type { RegistryOptions } from "./pull.ts";
import { endpointsFor } from "./registries.ts";
import type { Endpoint } from "./registries.ts";
import { RETRY_LIMITS, Retry } from "./retry.ts";
import { Session } from "./session.ts";
import { uploadBlob } from "./upload.ts";
import type { Uploaded } from "./upload.ts";

/** Repositories that a blob is looked for in, at most, before it is sent. */
const MOUNT_FROM = 2;

/** What {@link pushImage} takes. */
export interface PushContext {
  store: ContentStore;
  /** Of several platforms under the name; default this host's. */
  platform?: Platform;
  registry: RegistryOptions;
  /** See upload.ts. */
  pieceBytes?: number;
  onProgress?: ProgressSink;
  signal?: AbortSignal;
}

/** What a push has done. */
export interface Pushed {
  /** The image's name in the store. */
  name: string;
  /** Where it is now, spelt out. */
  destination: string;
  /** The manifest's, there as here. */
  digest: Digest;
  /** How each blob came there. */
  blobs: { digest: Digest; size: number; how: Uploaded }[];
}

/** Where a push goes. Throws ERR_VALIDATION_IMAGE_REF. */
function destinationOf(text: string): ImageReference {
  const reference = parseReference(text);
  if (reference.digest === undefined) return reference;
  throw imageError(
    "ERR_VALIDATION_IMAGE_REF",
    `Cannot push to ${text}`,
    "A digest is what a push results in; it cannot be chosen.",
    "Give a name with a tag.",
  );
}

/** For each blob, other repositories of the registry from which images with it came or went. */
async function findSources(
  store: ContentStore,
  to: ImageReference,
): Promise<Map<Digest, string[]>> {
  const found = new Map<Digest, string[]>();
  for (const entry of await listNames(store)) {
    let from: ImageReference;
    try {
      from = parseReference(entry.name);
    } catch {
      // ERR_VALIDATION_IMAGE_REF: a name of a layout or an archive.
      continue;
    }
    if (from.registry !== to.registry || from.repository === to.repository) continue;
    try {
      const { manifest } = await manifestOf(store, entry);
      for (const { digest } of manifest.layers) {
        const known = found.get(digest) ?? [];
        if (!known.includes(from.repository)) found.set(digest, [...known, from.repository]);
      }
    } catch {
      // ERR_IMAGE_BLOB_*: another image that is damaged is not this one's affair.
    }
  }
  return found;
}

/** Sessions with the registry: for the repository, and for each that blobs are taken from. */
class Sessions {
  readonly own: Session;
  readonly #make: (readFrom?: string) => Session;
  readonly #reading = new Map<string, Session>();

  constructor(endpoint: Endpoint, transport: Transport, registry: RegistryOptions) {
    const { credentials, env } = registry;
    this.#make = (readFrom) =>
      new Session(endpoint, transport, {
        credentials,
        env,
        actions: "pull,push",
        ...(readFrom === undefined ? {} : { readFrom }),
      });
    this.own = this.#make();
  }

  reading(repository: string): Session {
    const session = this.#reading.get(repository) ?? this.#make(repository);
    this.#reading.set(repository, session);
    return session;
  }
}

/** Give the manifest its name there. */
async function putManifest(
  session: Session,
  reference: string,
  manifest: { bytes: Buffer; digest: Digest; mediaType: string },
  context: PushContext,
): Promise<void> {
  const { signal, onProgress } = context;
  const { bytes } = manifest;
  const retry = new Retry(context.registry.retry ?? RETRY_LIMITS, signal);
  for (;;) {
    try {
      const answer = await session.send(`manifests/${reference}`, {
        method: "PUT",
        accept: [200, 201, 202],
        headers: { "content-type": manifest.mediaType },
        // As bytes: a document that is no UTF-8 has its digest, too.
        body: { size: bytes.length, send: async (write) => write(bytes) },
        ...(signal === undefined ? {} : { signal }),
      });
      await answer.read(MANIFEST_LIMIT, signal);
      const stored = answer.headers["docker-content-digest"];
      if (stored === undefined || stored === manifest.digest) return;
      throw new PullFailure(
        {
          code: "ERR_IMAGE_DIGEST",
          message: `Cannot push to ${safeUrl(answer.url)}`,
          why: `The manifest ${manifest.digest} is ${stored} there.`,
          fix: "Tell the registry's operator: it changes what it is given.",
        },
        false,
      );
    } catch (error) {
      await retry.wait(error, (why, ms) =>
        onProgress?.({
          phase: "push",
          message: `${why} Trying again in ${(ms / 1000).toFixed(1)} s.`,
        }),
      );
    }
  }
}

/** The manifest's type as it says itself, or as the store knows it. */
function mediaTypeOf(bytes: Buffer, known: string): string {
  const said = (JSON.parse(bytes.toString("utf8")) as { mediaType?: unknown }).mediaType;
  if (typeof said === "string" && said !== "") return said;
  return known === "" ? MEDIA.manifest : known;
}

/**
 * Push an image of the store, byte for byte as it is there, so that its digest stays the same.
 * Blobs that the registry has are not sent.
 * @param text the image's name or digest in the store
 * @param destination where to; default its own name
 * Throws ERR_IMAGE_NOT_FOUND, ERR_VALIDATION_IMAGE_REF, and PullFailure as pulls do.
 */
export async function pushImage(
  text: string,
  destination: string | undefined,
  context: PushContext,
): Promise<Pushed> {
  const { store, registry, onProgress, signal } = context;
  const entry = await findImage(store, text, context.platform);
  const to = destinationOf(destination ?? entry.name);
  const name = formatReference(to);
  const push = async (): Promise<Pushed> => {
    const pathOf = (digest: Digest): string => store.blobPath(digest);
    const platform = entry.descriptor.platform ?? { os: "", architecture: "" };
    const found = await findManifest(entry.descriptor, platform, pathOf, entry.name);
    // Nothing leaves that is not what its digest says.
    await assembleImage(found, pathOf, entry.name, store, signal);
    const endpoint = endpointsFor(to, registry.registries ?? { mirrors: {}, insecure: [] }).at(-1);
    if (endpoint === undefined) throw new TypeError("A reference without a server");
    const transport = transportFor(registry);
    try {
      const sessions = new Sessions(endpoint, transport, registry);
      const sources = await findSources(store, to);
      const { manifest } = found;
      const own = [manifest.config, ...manifest.layers].filter(
        ({ mediaType }) => !isNonDistributable(mediaType),
      );
      const byDigest = [...new Map(own.map((blob) => [blob.digest, blob])).values()];
      // The longest first: it decides when everything is there.
      byDigest.sort((a, b) => b.size - a.size);
      for (const { digest, size } of byDigest) {
        const item = shortDigest(digest);
        onProgress?.({ phase: "push", item, done: 0, total: size, unit: "bytes" });
      }
      const blobs: Pushed["blobs"] = [];
      const tasks = byDigest.map((blob) => async (stop: AbortSignal) => {
        const how = await uploadBlob(blob, {
          session: sessions.own,
          path: store.blobPath(blob.digest),
          sources: (sources.get(blob.digest) ?? [])
            .slice(0, MOUNT_FROM)
            .map((repository) => ({ repository, session: sessions.reading(repository) })),
          limits: registry.retry ?? RETRY_LIMITS,
          ...(context.pieceBytes === undefined ? {} : { pieceBytes: context.pieceBytes }),
          ...(onProgress === undefined ? {} : { onProgress }),
          signal: stop,
        });
        blobs.push({ digest: blob.digest, size: blob.size, how });
      });
      await asPhase("layers", () => inParallel(tasks, signal));
      const bytes = await store.readBlob(found.digest, MANIFEST_LIMIT);
      const mediaType = mediaTypeOf(bytes, entry.descriptor.mediaType);
      const document = { bytes, digest: found.digest, mediaType };
      const put = (): Promise<void> =>
        putManifest(sessions.own, to.tag ?? "latest", document, context);
      await asPhase("manifest", put);
      return { name: entry.name, destination: name, digest: found.digest, blobs };
    } finally {
      transport.close();
    }
  };
  return withLease(
    store,
    `push of ${name}`,
    async (lease) => {
      await lease.protect([entry.descriptor.digest]);
      await lease.protect(blobsOf(await manifestOf(store, entry)));
      return push();
    },
    signal,
  );
}
