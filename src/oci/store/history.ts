/** How an image was made, step by step, as its configuration tells. */
import type { HistoryEntry } from "../../model/api/images.ts";
import type { Platform } from "../../model/image.ts";
import { diffIdsOf, parseConfig } from "../documents/config.ts";
import { CONFIG_LIMIT } from "../documents/documents.ts";
import { findImage, manifestOf } from "./manage.ts";
import type { ContentStore } from "./store.ts";

/**
 * The steps, the last one first. Layers that no step claims (histories are often left out, in part
 * or whole) come as steps without words, so that all layers are there.
 * Throws ERR_IMAGE_NOT_FOUND, ERR_IMAGE_BLOB_*.
 */
export async function imageHistory(
  store: ContentStore,
  text: string,
  platform?: Platform,
): Promise<HistoryEntry[]> {
  const entry = await findImage(store, text, platform);
  const { manifest } = await manifestOf(store, entry);
  const bytes = await store.readBlob(manifest.config.digest, CONFIG_LIMIT);
  const config = parseConfig(bytes, manifest.layers.length, entry.name);
  const diffIds = diffIdsOf(config);
  const layers = manifest.layers.map(({ digest, size }, index) => ({
    digest,
    size,
    diffId: diffIds[index] ?? digest,
  }));
  const steps: HistoryEntry[] = [];
  for (const told of config.history ?? []) {
    const layer = told.empty_layer === true ? undefined : layers.shift();
    steps.push({
      ...(told.created === undefined ? {} : { created: told.created }),
      createdBy: told.created_by ?? "",
      comment: told.comment ?? "",
      ...(layer === undefined ? {} : { layer }),
    });
  }
  for (const layer of layers) steps.push({ createdBy: "", comment: "", layer });
  return steps.reverse();
}
