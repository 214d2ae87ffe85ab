/** `oci:DIR[:TAG]`: an OCI image layout of another tool, used where it is. */
import { join } from "node:path";
import type { Image, Platform } from "../../model/image.ts";
import type { IndexEntry } from "../../schema/oci.ts";
import { assembleImage, choiceOf } from "../store/assemble.ts";
import { chooseManifest, follow } from "../documents/choose.ts";
import type { Choice, FoundManifest } from "../documents/choose.ts";
import { imageError } from "../errors.ts";
import { nameOf, readIndex } from "../store/names.ts";
import { hexOf } from "../store/store.ts";
import type { ContentStore } from "../store/store.ts";

/** The entries that a tag means, or all when there is no tag and they are of one image. */
export function taggedEntries(
  entries: readonly IndexEntry[],
  tag: string | undefined,
  what: string,
): readonly IndexEntry[] {
  const names = [...new Set(entries.map(nameOf).filter((name) => name !== undefined))];
  const offer =
    names.length === 0 ? "It names no tags." : `It has the tags ${names.slice(0, 20).join(", ")}.`;
  const candidates =
    tag === undefined
      ? entries
      : entries.filter((entry) => nameOf(entry) === tag || entry.digest === tag);
  if (candidates.length === 0) {
    throw imageError(
      "ERR_IMAGE_NOT_FOUND",
      `Cannot find ${what}`,
      tag === undefined ? "The layout holds no image." : offer,
      "Name one of its tags after a colon.",
    );
  }
  if (tag === undefined && entries.length > 1 && names.length > 1) {
    throw imageError(
      "ERR_IMAGE_AMBIGUOUS",
      `Cannot choose an image of ${what}`,
      offer,
      "Name one of them: oci:DIR:TAG.",
    );
  }
  return candidates;
}

/** The manifest of the entries that a tag means: one is taken as it is, of several the best. */
export async function chooseTagged(
  entries: readonly IndexEntry[],
  choice: Choice,
  unusable: readonly string[],
): Promise<FoundManifest> {
  const [only, second] = entries;
  return only !== undefined && second === undefined
    ? follow(only, choice)
    : chooseManifest(entries, choice, unusable);
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
  const entries = taggedEntries(index.manifests, source.tag, name);
  const pathOf = (digest: `sha256:${string}`): string =>
    join(source.path, "blobs", "sha256", hexOf(digest));
  const choice = choiceOf(platform, pathOf, name);
  const found = await chooseTagged(entries, choice, index.unusable);
  return assembleImage(found, pathOf, name, store, signal);
}
