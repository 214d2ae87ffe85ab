/** Identities computed from content, so that the same input gives the same bytes everywhere. */
import { createHash } from "node:crypto";
import type { DiskOptions } from "../model/disk.ts";
import type { LayerBlob } from "../model/image.ts";

/** A hash over what decides an image: the layers' contents, options, builder and version. */
export function imageKey(
  layers: readonly LayerBlob[],
  options: DiskOptions,
  builder: string,
  version: string,
): string {
  const decisive = {
    layers: layers.map(({ diffId }) => diffId),
    sizeBytes: options.sizeBytes,
    journal: options.journal,
    label: options.label ?? "",
    builder,
    version,
  };
  return createHash("sha256").update(JSON.stringify(decisive)).digest("hex");
}

/** UUID (version 8: custom) and directory hash seed that belong to a key. */
export function identityOf(key: string): { uuid: Uint8Array; hashSeed: Uint8Array } {
  const bytes = createHash("sha256").update(`identity ${key}`).digest();
  const uuid = Uint8Array.from(bytes.subarray(0, 16));
  uuid[6] = ((uuid[6] ?? 0) & 0x0f) | 0x80;
  uuid[8] = ((uuid[8] ?? 0) & 0x3f) | 0x80;
  return { uuid, hashSeed: Uint8Array.from(bytes.subarray(16)) };
}
