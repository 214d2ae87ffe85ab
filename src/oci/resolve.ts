/** From an image source of any kind to a verified image. */
import type { Readable } from "node:stream";
import type { Image, ImageSource, Platform } from "../model/image.ts";
import type { ProgressSink } from "../model/progress.ts";
import type { LoadedImage, Only } from "./archives/archives.ts";
import { imageError } from "./errors.ts";
import { withTextPath } from "./path-alias.ts";
import { withLease } from "./store/leases.ts";
import type { Lease } from "./store/leases.ts";
import type { Follow } from "./registry/following.ts";
import type { RegistryOptions } from "./registry/pull.ts";
import { formatPlatform, hostPlatform } from "./documents/platform.ts";
import { formatImageSource } from "./source.ts";
import type { ContentStore } from "./store/store.ts";

/** When a registry is asked: if the image is not in the store, each time, or not at all. */
export type PullPolicy = "missing" | "always" | "never";

/** What {@link resolveImage} takes. */
export interface ResolveOptions {
  store: ContentStore;
  /** Default: this host's. */
  platform?: Platform;
  /** Default `missing`. */
  pull?: PullPolicy;
  /** Keeps the blobs after return; without one they are only safe while this runs. */
  lease?: Lease;
  /** How to talk to registries: authorities, mirrors, credentials, limits. */
  registry?: RegistryOptions;
  onProgress?: ProgressSink;
  signal?: AbortSignal;
  /** Who wants the layers of an image while they come from a registry. */
  follow?: Follow;
}

/** Refuse an image that names another kind of processor: its programs could not be run. */
function checkPlatform(image: Image, wanted: Platform): void {
  const { os, architecture } = image.platform;
  // Images made by hand may name none.
  if (os === "" || architecture === "") return;
  if (os === wanted.os && architecture === wanted.architecture) return;
  throw imageError(
    "ERR_IMAGE_PLATFORM",
    `Cannot use ${image.name} for ${formatPlatform(wanted)}`,
    `It is for ${formatPlatform(image.platform)}.`,
    `Choose an image for this machine, or ask for --platform ${formatPlatform(image.platform)}.`,
  );
}

/**
 * Make an image available: fetched or copied if needed, every blob verified.
 * Throws ERR_IMAGE_* with cause and remedy; leaves no temporary file when it fails.
 */
export async function resolveImage(source: ImageSource, options: ResolveOptions): Promise<Image> {
  const name = formatImageSource(source);
  const { store, signal } = options;
  const body = async (lease: Lease): Promise<Image> => {
    const platform = options.platform ?? hostPlatform();
    const context = { store, lease, platform, ...(signal === undefined ? {} : { signal }) };
    switch (source.kind) {
      case "oci": {
        const { resolveLayout } = await import("./archives/layout.ts");
        return withTextPath(source, lease.dir, async (at) =>
          resolveLayout(at, name, platform, store, signal),
        );
      }
      case "oci-archive":
      case "docker-archive": {
        const { resolveArchive } = await import("./archives/archives.ts");
        return withTextPath(source, lease.dir, async (at) => resolveArchive(at, name, context));
      }
      case "rootfs": {
        const { resolveRootfs } = await import("./archives/rootfs.ts");
        return withTextPath(source, lease.dir, async (at) => resolveRootfs(at, name, context));
      }
      case "registry": {
        const { pullImage } = await import("./registry/pull.ts");
        return pullImage(source.reference, {
          ...context,
          pull: options.pull ?? "missing",
          registry: options.registry ?? {},
          ...(options.onProgress === undefined ? {} : { onProgress: options.onProgress }),
          ...(options.follow === undefined ? {} : { follow: options.follow }),
        });
      }
      case "docker-daemon": {
        const { resolveDockerDaemon } = await import("./archives/docker-daemon.ts");
        return resolveDockerDaemon(source, name, context);
      }
      case "runtime":
        throw imageError(
          "ERR_IMAGE_SOURCE",
          `Cannot use ${name}`,
          "A runtime is only a name: the catalogue says which image it means.",
          "Name an image, or look the runtime up first.",
        );
    }
  };
  const image =
    options.lease === undefined
      ? await withLease(store, `use of ${name}`, body, signal)
      : await body(options.lease);
  checkPlatform(image, options.platform ?? hostPlatform());
  return image;
}

/**
 * Load every image of a `docker save` or OCI archive from a stream (`-`: standard input).
 * @param options `label`: what the stream is called in messages; `only`: one image, not all
 */
export async function importArchive(
  stream: Readable,
  options: ResolveOptions & { label?: string; only?: Only },
): Promise<LoadedImage[]> {
  const { store, signal } = options;
  const label = options.label ?? "standard input";
  const body = async (lease: Lease): Promise<LoadedImage[]> => {
    const { loadArchive } = await import("./archives/archives.ts");
    const platform = options.platform ?? hostPlatform();
    const context = { store, lease, platform, ...(signal === undefined ? {} : { signal }) };
    return loadArchive(stream, label, context, options.only);
  };
  if (options.lease !== undefined) return body(options.lease);
  return withLease(store, `import of ${label}`, body, signal);
}
