/** Images that a build asks for: from the store, pulled if it lacks them, as the caller may. */
import type { BuildRequest } from "../../model/api/builds.ts";
import { VmsanError, asVmsanError } from "../../model/errors.ts";
import type { Digest, Image } from "../../model/image.ts";
import type { Lease } from "../../oci/images.ts";
import { protectBytes } from "../../oci/archives/archive-file.ts";
import { CONFIG_LIMIT, MANIFEST_LIMIT } from "../../oci/documents/documents.ts";
import { MEDIA } from "../../oci/documents/media.ts";
import { isDigest } from "../../oci/reference.ts";
import { fetchByDigest } from "../../oci/registry/pull.ts";
import { locateBlob } from "../../oci/store/locate.ts";
import { digestOf, readVerified } from "../../oci/store/store.ts";
import { parseReference } from "../../oci/images.ts";
import type { Host } from "../../sandbox/host.ts";
import type { Work } from "../../sandbox/stages.ts";

/** A manifest as it is served. */
export interface Served {
  bytes: Buffer;
  digest: Digest;
  mediaType: string;
}

/** An image that a build has asked for, and which it was. */
export interface Asked {
  /** `hN` of a registry. */
  place: string;
  repository: string;
  reference: string;
  digest: Digest;
}

/** Codes of errors that say that there is no image of a platform. */
const ABSENT = new Set(["ERR_IMAGE_PLATFORM", "ERR_IMAGE_NOT_CACHED"]);

/** Steps that a configuration has for builds upon it. */
function triggersOf(config: Buffer): string[] {
  const { config: settings } = JSON.parse(config.toString("utf8")) as {
    config?: Record<string, unknown> | null;
  };
  const triggers = settings?.["OnBuild"];
  return Array.isArray(triggers) ? triggers.map(String) : [];
}

/**
 * An image whose configuration does not tell of all of its layers, as one that does: buildah builds on
 * no other ("history lists 1 non-empty layers, but we have 2"). Layers and settings stay what they are.
 * @returns undefined when it tells of all of them
 */
function withHistory(
  manifest: Buffer,
  config: Buffer,
  layers: number,
): { config: Buffer; manifest: (digest: Digest) => Buffer } | undefined {
  const settings = JSON.parse(config.toString("utf8")) as Record<string, unknown>;
  const before = Array.isArray(settings["history"]) ? (settings["history"] as unknown[]) : [];
  const isLayer = (step: unknown): boolean =>
    typeof step !== "object" || (step as Record<string, unknown>)["empty_layer"] !== true;
  const missing = layers - before.filter(isLayer).length;
  if (missing <= 0) return undefined;
  const created = settings["created"] ?? "1970-01-01T00:00:00Z";
  const steps = Array.from({ length: missing }, () => ({ created, created_by: "" }));
  const told = Buffer.from(
    JSON.stringify({ ...settings, created, history: [...steps, ...before] }),
  );
  const document = JSON.parse(manifest.toString("utf8")) as { config: Record<string, unknown> };
  return {
    config: told,
    manifest: (digest) => {
      const named = { ...document.config, digest, size: told.length };
      return Buffer.from(JSON.stringify({ ...document, config: named }));
    },
  };
}

/** What of a request says which images are meant. */
type Wish = Pick<BuildRequest, "pull" | "platform" | "registry"> & {
  /** Platforms that stages want, when they are several. */
  platforms?: readonly string[];
};

/** What one build has asked for. */
export class Imports {
  readonly #host: Host;
  readonly #lease: Lease;
  readonly #request: Wish;
  readonly #work: Work;
  #hosts: readonly string[];
  readonly #blobs = new Map<Digest, string>();
  readonly #documents = new Map<Digest, Served>();
  readonly #named = new Map<string, Promise<Served>>();
  readonly #asked: Asked[] = [];
  /** What the images have of ONBUILD. */
  readonly triggers: string[] = [];
  /** Why an image could not be had: buildah repeats it in its own words only. */
  failure: VmsanError | undefined;

  /** @param hosts registries by number: `h0` is the first one */
  constructor(host: Host, lease: Lease, request: Wish, hosts: readonly string[], work: Work) {
    this.#host = host;
    this.#lease = lease;
    this.#request = request;
    this.#hosts = hosts;
    this.#work = work;
  }

  /** Registries by number have become more; those before keep theirs. */
  know(hosts: readonly string[]): void {
    this.#hosts = hosts;
    this.failure = undefined;
  }

  /** Where a blob of an image is that was asked for. */
  blob(digest: Digest): string | undefined {
    return this.#blobs.get(digest);
  }

  /** What was asked for by name, or by a digest that the build knew. */
  get asked(): readonly Asked[] {
    return this.#asked;
  }

  /** The manifest of a name or digest. @throws what a pull throws */
  async manifest(place: string, repository: string, reference: string): Promise<Served> {
    const known = isDigest(reference) ? this.#documents.get(reference) : undefined;
    if (known !== undefined) return known;
    const registry = this.#hosts[Number(place.slice(1))];
    const separator = isDigest(reference) ? "@" : ":";
    const name = `${registry ?? "unknown.invalid"}/${repository}${separator}${reference}`;
    let found = this.#named.get(name);
    if (found === undefined) {
      found = this.#resolve(name, reference).then((served) => {
        this.#asked.push({ place, repository, reference, digest: served.digest });
        return served;
      });
      this.#named.set(name, found);
    }
    try {
      return await found;
    } catch (error) {
      this.#named.delete(name);
      this.failure = asVmsanError(error, `Cannot get ${name}`);
      throw error;
    }
  }

  /** The image of a name. */
  async #image(name: string, platform: string | undefined): Promise<Image> {
    const { pull, registry } = this.#request;
    // A Dockerfile's `docker-daemon:1/x` is no engine of this host, nor `oci:1/x` a directory.
    return await this.#host.resolve(`docker://${name}`, {
      pull,
      lease: this.#lease,
      ...(platform === undefined ? {} : { platform }),
      ...(registry === undefined ? {} : { registry }),
      ...this.#work,
    });
  }

  /** An index of the image for each platform that a stage may want; the one image when it is the only one. */
  async #several(name: string, platforms: readonly string[]): Promise<Served> {
    const found: { image: Image; served: Served }[] = [];
    let missing: unknown;
    for (const platform of platforms) {
      try {
        const image = await this.#image(name, platform);
        found.push({ image, served: await this.#take(image) });
      } catch (error) {
        // Not for that one: perhaps no stage wants it of this image.
        if (!(error instanceof VmsanError) || !ABSENT.has(error.code)) throw error;
        missing ??= error;
      }
    }
    const [first, ...others] = found;
    if (first === undefined) throw missing;
    if (others.length === 0) return first.served;
    const manifests = found.map(({ image: { platform }, served }) => {
      const { mediaType, digest, bytes } = served;
      return { mediaType, digest, size: bytes.length, platform };
    });
    const index = { schemaVersion: 2, mediaType: MEDIA.index, manifests };
    return this.#keep(Buffer.from(JSON.stringify(index)), MEDIA.index);
  }

  async #resolve(name: string, reference: string): Promise<Served> {
    const { platform, registry, platforms = [] } = this.#request;
    const { store } = this.#host;
    if (platforms.length > 1 && !isDigest(reference)) return await this.#several(name, platforms);
    const image = await this.#image(name, platform);
    const served = await this.#take(image);
    if (!isDigest(reference) || reference === served.digest) return served;
    // It names an index, whose bytes must be those that have this digest.
    const bytes = await fetchByDigest(parseReference(name), {
      store,
      registry: await this.#host.registryOptions(registry),
      signal: this.#work.signal,
    });
    return this.#keep(bytes, MEDIA.index);
  }

  /** Have an image's blobs served. */
  async #take(image: Image): Promise<Served> {
    const { store } = this.#host;
    const where = (digest: Digest): string => locateBlob(store, image, digest);
    this.#blobs.set(image.configDigest, where(image.configDigest));
    for (const { digest, path } of image.layers) this.#blobs.set(digest, path);
    const bytes = await readVerified(where(image.digest), image.digest, MANIFEST_LIMIT);
    const config = await readVerified(where(image.configDigest), image.configDigest, CONFIG_LIMIT);
    this.triggers.push(...triggersOf(config));
    const told = withHistory(bytes, config, image.layers.length);
    if (told === undefined) return this.#keep(bytes, MEDIA.manifest);
    const digest = await protectBytes(told.config, store, this.#lease);
    this.#blobs.set(digest, store.blobPath(digest));
    return this.#keep(told.manifest(digest), MEDIA.manifest);
  }

  #keep(bytes: Buffer, otherwise: string): Served {
    const said = (JSON.parse(bytes.toString("utf8")) as { mediaType?: unknown }).mediaType;
    const mediaType = typeof said === "string" && said !== "" ? said : otherwise;
    const served = { bytes, digest: digestOf(bytes), mediaType };
    this.#documents.set(served.digest, served);
    return served;
  }
}
