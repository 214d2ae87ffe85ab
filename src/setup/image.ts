/** Runtimes that are images of a registry: looked for in the content store, and fetched into it. */
import { existsSync } from "node:fs";
import { VmsanError } from "../model/errors.ts";
import type { ProgressSink } from "../model/progress.ts";
import { loadRegistries, openStore, parseImageSource, resolveImage } from "../oci/images.ts";
import type { PullPolicy } from "../oci/images.ts";
import type { Layout } from "../util/paths.ts";

/** How the image is fetched. */
export interface FetchOptions {
  /** Ask the registry also when the image is there. */
  refresh?: boolean;
  signal?: AbortSignal;
  progress?: ProgressSink;
}

/** The image's manifest digest, once all its blobs are in the store. */
async function resolved(
  layout: Layout,
  image: string,
  pull: PullPolicy,
  options: FetchOptions,
): Promise<string> {
  const { signal, progress } = options;
  const found = await resolveImage(parseImageSource(image), {
    store: await openStore(layout.images),
    pull,
    registry: { registries: await loadRegistries(layout.registriesFile), env: process.env },
    ...(signal === undefined ? {} : { signal }),
    ...(progress === undefined ? {} : { onProgress: progress }),
  });
  return found.digest;
}

/** Whether the catalogue's image comes from a registry; others lie on this host. */
export function isRemote(image: string): boolean {
  return parseImageSource(image).kind === "registry";
}

/**
 * The digest of an image that is in the store; undefined when it has to be fetched, or looked at
 * because it lies elsewhere. Changes nothing.
 * @param image an image source as the catalogue of runtimes has it
 */
export async function lookForImage(layout: Layout, image: string): Promise<string | undefined> {
  if (!isRemote(image) || !existsSync(layout.images)) return undefined;
  try {
    return await resolved(layout, image, "never", {});
  } catch (error) {
    if (error instanceof VmsanError && error.code === "ERR_IMAGE_NOT_CACHED") return undefined;
    throw error;
  }
}

/**
 * Fetch an image into the store.
 * @returns its digest
 * @throws ERR_IMAGE_* as any pull does
 */
export async function pullRuntimeImage(
  layout: Layout,
  image: string,
  options: FetchOptions,
): Promise<string> {
  return await resolved(layout, image, options.refresh === true ? "always" : "missing", options);
}
