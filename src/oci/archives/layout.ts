/** `oci:DIR[:TAG]`: an OCI image layout of another tool, used where it is. */
import { join } from "node:path";
import type { Image, Platform } from "../../model/image.ts";
import type { Descriptor } from "../../schema/oci.ts";
import { assembleImage, findManifest } from "../store/assemble.ts";
import { selectManifest } from "../documents/documents.ts";
import { imageError } from "../errors.ts";
import { nameOf, readIndex } from "../store/names.ts";
import { hexOf } from "../store/store.ts";
import type { ContentStore } from "../store/store.ts";

/** Choose an index entry by tag, or the only image when there is no tag. */
export function chooseEntry(
  entries: readonly Descriptor[],
  tag: string | undefined,
  platform: Platform,
  what: string,
): Descriptor {
  const names = [...new Set(entries.map(nameOf).filter((name) => name !== undefined))];
  const offer =
    names.length === 0 ? "It names no tags." : `It has the tags ${names.slice(0, 20).join(", ")}.`;
  const candidates =
    tag === undefined
      ? entries
      : entries.filter((entry) => nameOf(entry) === tag || entry.digest === tag);
  const [only, second] = candidates;
  if (only === undefined) {
    throw imageError(
      "ERR_IMAGE_NOT_FOUND",
      `Cannot find ${what}`,
      tag === undefined ? "The layout holds no image." : offer,
      "Name one of its tags after a colon.",
    );
  }
  if (second === undefined) return only;
  if (tag === undefined && names.length > 1) {
    throw imageError(
      "ERR_IMAGE_AMBIGUOUS",
      `Cannot choose an image of ${what}`,
      offer,
      "Name one of them: oci:DIR:TAG.",
    );
  }
  return selectManifest(candidates, platform, what);
}

/** The image of an OCI layout directory. Its blobs stay where they are. */
export async function resolveLayout(
  source: { path: string; tag?: string },
  name: string,
  platform: Platform,
  store: ContentStore,
  signal?: AbortSignal,
): Promise<Image> {
  const index = await readIndex(source.path);
  const entry = chooseEntry(index.manifests, source.tag, platform, name);
  const pathOf = (digest: `sha256:${string}`): string =>
    join(source.path, "blobs", "sha256", hexOf(digest));
  const found = await findManifest(entry, platform, pathOf, name);
  return assembleImage(found, pathOf, name, store, signal);
}
