/** Where an image's blobs lie: in the store, or beside its layers when those are used where they are. */
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import type { Digest, Image } from "../../model/image.ts";
import { hexOf } from "./store.ts";
import type { ContentStore } from "./store.ts";

/** Path of a blob of the image; the store's when it is nowhere. */
export function locateBlob(store: ContentStore, image: Image, digest: Digest): string {
  const layer = image.layers.find((each) => each.digest === digest);
  const beside = image.layers.map(({ path }) => join(dirname(path), hexOf(digest)));
  const places = [store.blobPath(digest), ...(layer === undefined ? [] : [layer.path]), ...beside];
  return places.find((path) => existsSync(path)) ?? store.blobPath(digest);
}
