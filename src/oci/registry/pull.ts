/**
 * oci/registry/: images from registries and their mirrors. Takes a reference and credentials;
 * gives verified blobs in the store, each fetched once among all processes.
 *
 * pull.ts: one image: manifest, configuration and layers.
 */
import { asPhase } from "../../util/flow/phases.ts";
import { together } from "../../util/flow/together.ts";
import type { BlobPeers } from "../../model/api.ts";
import type { Digest, Image, ImageReference, Platform } from "../../model/image.ts";
import { VmsanError } from "../../model/errors.ts";
import type { ProgressSink } from "../../model/progress.ts";
import type { Descriptor } from "../../schema/oci.ts";
import { assembleImage, blobsOf, findManifest, foreignLayer } from "../store/assemble.ts";
import type { Credentials } from "./credentials.ts";
import { manifestOf } from "../documents/choose.ts";
import type { FoundManifest } from "../documents/choose.ts";
import { parseConfig } from "../documents/config.ts";
import { CONFIG_LIMIT, MANIFEST_LIMIT } from "../documents/documents.ts";
import { MEDIA, isNonDistributable } from "../documents/media.ts";
import { downloadBlob, shortDigest } from "./download.ts";
import type { BlobPeer, DownloadContext } from "./download.ts";
import { Following } from "./following.ts";
import type { Follow } from "./following.ts";
import { imageError } from "../errors.ts";
import { PullFailure, safeUrl } from "../http/failure.ts";
import type { Lease } from "../store/leases.ts";
import { findDigest, findName, findUnnamed, setName } from "../store/names.ts";
import type { NamedManifest } from "../store/names.ts";
import { formatReference } from "../reference.ts";
import { endpointsFor } from "./registries.ts";
import type { RegistriesConfig } from "./registries.ts";
import { AsManyAsHelp, inParallel } from "./parallel.ts";
import { Peers } from "./peers.ts";
import { RETRY_LIMITS, Retry } from "./retry.ts";
import type { RetryLimits } from "./retry.ts";
import { Session } from "./session.ts";
import { digestOf } from "../store/store.ts";
import type { ContentStore } from "../store/store.ts";
import { Transport } from "../http/transport.ts";
import type { TransportOptions } from "../http/transport.ts";

/** How to talk to registries. */
export interface RegistryOptions extends TransportOptions {
  registries?: RegistriesConfig;
  /** Instead of those in the user's credential files; for the reference's registry only. */
  credentials?: Credentials;
  retry?: RetryLimits;
  /** Asked for layers before the registry and its mirrors. */
  peers?: BlobPeers;
}

/** Connections with these options; close them when done. */
export function transportFor(registry: RegistryOptions): Transport {
  const insecure = registry.registries?.insecure ?? [];
  return new Transport({
    ...registry,
    insecure: registry.insecure ?? ((host) => insecure.includes(host)),
  });
}

/** Conversations with the servers that may have an image, in the order in which they are asked. */
function sessionsFor(
  reference: ImageReference,
  transport: Transport,
  registry: RegistryOptions,
): Session[] {
  const endpoints = endpointsFor(reference, registry.registries ?? { mirrors: {}, insecure: [] });
  return endpoints.map((endpoint) => {
    const own = endpoint.registry === reference.registry ? registry.credentials : undefined;
    return new Session(endpoint, transport, { credentials: own, env: registry.env });
  });
}

/** What {@link pullImage} takes. */
export interface PullContext {
  store: ContentStore;
  lease: Lease;
  platform: Platform;
  pull: "missing" | "always" | "never";
  registry: RegistryOptions;
  onProgress?: ProgressSink;
  signal?: AbortSignal;
  /** Who wants the layers while they come; not asked when the store has all. */
  follow?: Follow;
}

/** A document of a registry, its digest verified. */
interface Fetched {
  bytes: Buffer;
  digest: Digest;
  mediaType: string | undefined;
}

/** Fetch a manifest or an index by tag or digest. */
async function fetchDocument(
  session: Session,
  reference: string,
  context: Pick<PullContext, "registry" | "signal" | "onProgress">,
): Promise<Fetched> {
  const { signal, onProgress } = context;
  const retry = new Retry(context.registry.retry ?? RETRY_LIMITS, signal, 2);
  const accept = [MEDIA.index, MEDIA.manifest, MEDIA.dockerList, MEDIA.dockerManifest].join(", ");
  for (;;) {
    try {
      const answer = await session.get(`manifests/${reference}`, {
        headers: { accept },
        ...(signal === undefined ? {} : { signal }),
      });
      const bytes = await answer.read(MANIFEST_LIMIT, signal);
      if (bytes === undefined) throw tooLarge(answer.url);
      const digest = digestOf(bytes);
      if (reference.startsWith("sha256:") && digest !== reference) {
        throw wrongManifest(answer.url, digest, reference);
      }
      const type = answer.headers["content-type"];
      return { bytes, digest, mediaType: type?.split(";")[0]?.trim() };
    } catch (error) {
      await retry.wait(error, (why, ms) =>
        onProgress?.({
          phase: "pull",
          message: `${why} Trying again in ${(ms / 1000).toFixed(1)} s.`,
        }),
      );
    }
  }
}

/** The error for a manifest beyond the limit. */
function tooLarge(url: URL): Error {
  return imageError(
    "ERR_IMAGE_TOO_LARGE",
    `Cannot use ${safeUrl(url)}`,
    `The manifest is larger than ${MANIFEST_LIMIT} bytes.`,
    "Check that the reference names an ordinary image.",
  );
}

/** The error for a manifest with another digest than asked for. */
function wrongManifest(url: URL, found: string, wanted: string): PullFailure {
  return new PullFailure(
    {
      code: "ERR_IMAGE_DIGEST",
      message: `Cannot use what ${safeUrl(url)} sends`,
      why: `The content is ${found} instead of ${wanted}.`,
      fix: "Pull again; if it stays so, the registry or something on the way to it changes the content.",
    },
    false,
  );
}

/** The manifest for the platform, and what the reference itself points to. */
interface RemoteManifest {
  found: FoundManifest;
  bytes: Uint8Array;
  sourceDigest: Digest;
}

/** Fetch the manifest that a reference means on one server. */
async function fetchManifest(
  session: Session,
  reference: ImageReference,
  context: PullContext,
): Promise<RemoteManifest> {
  const { store, lease, platform } = context;
  const first = await fetchDocument(
    session,
    reference.digest ?? reference.tag ?? "latest",
    context,
  );
  const documents = new Map<Digest, Uint8Array>([[first.digest, first.bytes]]);
  const found = await manifestOf(first, {
    platform,
    what: formatReference(reference),
    readDocument: async ({ digest }) => {
      const { bytes } = await fetchDocument(session, digest, context);
      documents.set(digest, bytes);
      return bytes;
    },
    readConfig: async (config) => {
      await lease.protect([config.digest]);
      await downloadBlob(config, downloadContext([session], context));
      return store.readBlob(config.digest, CONFIG_LIMIT);
    },
  });
  const bytes = documents.get(found.digest) ?? first.bytes;
  return { found, bytes, sourceDigest: first.digest };
}

/** What a download needs of a pull. */
function downloadContext(
  sessions: readonly Session[],
  context: PullContext,
  signal: AbortSignal | undefined = context.signal,
): DownloadContext {
  const { store, onProgress, registry } = context;
  return {
    store,
    sessions,
    limits: registry.retry ?? RETRY_LIMITS,
    ...(onProgress === undefined ? {} : { onProgress }),
    ...(signal === undefined ? {} : { signal }),
  };
}

/** Layers of fewer bytes wait for answers more than for bytes. */
const SMALL = 4 << 20;

/** Fetch everything that a manifest names. */
async function fetchBlobs(
  remote: RemoteManifest,
  name: string,
  sessions: readonly Session[],
  peers: Peers | undefined,
  context: PullContext,
): Promise<void> {
  const { store, lease, onProgress, signal } = context;
  const { manifest } = remote.found;
  await lease.protect(blobsOf(remote.found));
  const following = new Following(context.follow);
  const download = async (
    descriptor: Descriptor,
    stop: AbortSignal | undefined,
    peer?: BlobPeer,
  ): Promise<void> => {
    const asked = { ...downloadContext(sessions, context, stop), following };
    try {
      await downloadBlob(descriptor, peer === undefined ? asked : { ...asked, peer });
    } catch (error) {
      const missing = error instanceof PullFailure && error.code === "ERR_IMAGE_NOT_FOUND";
      if (!missing || !isNonDistributable(descriptor.mediaType)) throw error;
      throw foreignLayer(descriptor, "The registry does not hold it.", error);
    }
  };
  const byDigest = new Map(manifest.layers.map((layer) => [layer.digest, layer]));
  // The longest first: it decides when everything is there. Disks are built from the top.
  const layers = following.wanted
    ? [...byDigest.values()].reverse()
    : [...byDigest.values()].sort((a, b) => b.size - a.size);
  // All at once, so that whoever adds them up knows the sum from the start.
  for (const { digest, size } of [manifest.config, ...layers]) {
    onProgress?.({ phase: "pull", item: shortDigest(digest), done: 0, total: size, unit: "bytes" });
  }
  const configFirst = async (stop: AbortSignal): Promise<void> => {
    await download(manifest.config, stop);
    const bytes = await store.readBlob(manifest.config.digest, CONFIG_LIMIT);
    // Before gigabytes have come, not after.
    const config = parseConfig(bytes, manifest.layers.length, name);
    following.begin(manifest, config, store);
  };
  const tasksOf = (wanted: readonly Descriptor[]): ((stop: AbortSignal) => Promise<void>)[] =>
    wanted.map(
      (layer) => async (stop) => download(layer, stop, await peers?.having(layer, store, stop)),
    );
  if (following.wanted) {
    const isSmall = ({ size }: Descriptor): boolean => size < SMALL;
    await together<[void, void]>(
      signal ?? new AbortController().signal,
      async (stop) => inParallel([configFirst, ...tasksOf(layers.filter(isSmall))], stop),
      // The disk takes one after the other: all at once, most of them would be whole at the end alone.
      async (stop) => {
        const large = tasksOf(layers.filter((layer) => !isSmall(layer)));
        await inParallel(large, stop, new AsManyAsHelp(() => following.bytes));
      },
    );
  } else await inParallel([configFirst, ...tasksOf(layers)], signal);
  await store.putBytes(Buffer.from(remote.bytes));
}

/** The image as the store has it, if it is whole. */
async function loadCached(
  cached: NamedManifest,
  name: string,
  context: PullContext,
): Promise<Image> {
  const { store, lease, platform, signal } = context;
  const pathOf = (digest: Digest): string => store.blobPath(digest);
  await lease.protect([cached.descriptor.digest]);
  const found = await findManifest(cached.descriptor, platform, pathOf, name);
  await lease.protect(blobsOf(found));
  return assembleImage(found, pathOf, name, store, signal);
}

/** Try the store first, as far as the policy allows. */
async function tryCache(
  reference: ImageReference,
  name: string,
  context: PullContext,
): Promise<Image | undefined> {
  const { store, platform, pull } = context;
  const { digest } = reference;
  // What a digest names cannot change, so even `always` need not ask again.
  if (pull === "always" && digest === undefined) return undefined;
  let cached =
    digest === undefined
      ? await findName(store, name, platform)
      : await findDigest(store, digest, platform);
  // Another image may have taken its name; where a registry may be asked, that one says who may have it.
  if (digest !== undefined && pull === "never") cached ??= await findUnnamed(store, digest, name);
  if (cached === undefined) return undefined;
  try {
    return await loadCached(cached, name, context);
  } catch (error) {
    const lost =
      error instanceof VmsanError &&
      ["ERR_IMAGE_BLOB_MISSING", "ERR_IMAGE_BLOB_CORRUPT"].includes(error.code);
    if (!lost || pull === "never") throw error;
    context.onProgress?.({ phase: "pull", message: `${error.message}: ${error.why ?? ""}` });
    return undefined;
  }
}

/**
 * The image that a reference means, from the store or from its registry.
 * With `missing`, an image that the store has needs no network.
 */
export async function pullImage(reference: ImageReference, context: PullContext): Promise<Image> {
  const name = formatReference(reference);
  const cached = await tryCache(reference, name, context);
  if (cached !== undefined) return cached;
  if (context.pull === "never") {
    throw imageError(
      "ERR_IMAGE_NOT_CACHED",
      `Cannot use ${name}`,
      "It is not in the image store, and pulling is switched off.",
      `Run \`vmsan image pull ${name}\` first.`,
    );
  }
  const { registry, store, signal } = context;
  const transport = transportFor(registry);
  const sessions = sessionsFor(reference, transport, registry);
  const peers = registry.peers === undefined ? undefined : new Peers(registry.peers);
  try {
    for (const [index, session] of sessions.entries()) {
      let remote: RemoteManifest;
      try {
        remote = await asPhase("manifest", () => fetchManifest(session, reference, context));
      } catch (error) {
        signal?.throwIfAborted();
        const last = index === sessions.length - 1;
        if (last || !(error instanceof PullFailure)) throw error;
        context.onProgress?.({
          phase: "pull",
          message: `${session.endpoint.host} does not help (${error.why ?? error.message}); asking the next one.`,
        });
        continue;
      }
      const { found, sourceDigest } = remote;
      const from = sessions.slice(index);
      await asPhase("layers", () => fetchBlobs(remote, name, from, peers, context));
      const pathOf = (digest: Digest): string => store.blobPath(digest);
      const image = await assembleImage(found, pathOf, name, store, signal);
      await setName(store, { name, ...found, platform: image.platform, sourceDigest });
      return image;
    }
    throw new TypeError("A reference without a server");
  } finally {
    peers?.close();
    transport.close();
  }
}

/**
 * The document that a reference's digest names, be it an index: pulls keep the manifest of one
 * platform alone. It stays in the store until that is pruned.
 */
export async function fetchByDigest(
  reference: ImageReference,
  context: Pick<PullContext, "store" | "registry" | "signal">,
): Promise<Buffer> {
  const { store, registry, signal } = context;
  const { digest } = reference;
  if (digest === undefined) throw new TypeError("A reference without a digest");
  if ((await store.blobSize(digest)) !== undefined) return store.readBlob(digest, MANIFEST_LIMIT);
  const transport = transportFor(registry);
  try {
    let failure: unknown;
    for (const session of sessionsFor(reference, transport, registry)) {
      try {
        const { bytes } = await fetchDocument(session, digest, context);
        await store.putBytes(bytes);
        return bytes;
      } catch (error) {
        signal?.throwIfAborted();
        failure ??= error;
      }
    }
    throw failure;
  } finally {
    transport.close();
  }
}
