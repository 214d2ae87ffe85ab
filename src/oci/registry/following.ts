/** Tells whoever follows a pull what has come of its layers, from the moment at which they are known. */
import type { ComingLayer, Compression, Digest, LayerFollower } from "../../model/image.ts";
import { diffIdsOf } from "../documents/config.ts";
import { plainMediaType } from "../documents/media.ts";
import type { ConfigDocument, Manifest } from "../../schema/oci.ts";
import type { ContentStore } from "../store/store.ts";

/**
 * Asked to follow, once all layers are known (bottom to top) and before they are there.
 * @returns undefined: nobody does
 */
export type Follow = (layers: ComingLayer[]) => LayerFollower | undefined;

/** How a layer is most likely compressed: only its content tells, which has not come. */
function announcedCompression(mediaType: string): Compression {
  const type = plainMediaType(mediaType);
  if (type.includes("zstd")) return "zstd";
  return type.endsWith(".tar") ? "none" : "gzip";
}

/** What has come of a pull's layers. */
export class Following implements LayerFollower {
  readonly #follow: Follow | undefined;
  readonly #arrived = new Map<Digest, number>();
  #follower: LayerFollower | undefined;

  constructor(follow: Follow | undefined) {
    this.#follow = follow;
  }

  /** Whether anybody follows. */
  get wanted(): boolean {
    return this.#follow !== undefined;
  }

  /** The layers are known. */
  begin({ layers }: Manifest, config: ConfigDocument, store: ContentStore): void {
    const diffIds = diffIdsOf(config);
    this.#follower = this.#follow?.(
      layers.map(({ digest, size, mediaType }, index) => ({
        digest,
        size,
        // The configuration has as many as the manifest has layers.
        diffId: diffIds[index] ?? digest,
        compression: announcedCompression(mediaType),
        path: store.blobPath(digest),
        partial: store.partialPath(digest),
      })),
    );
    for (const [digest, bytes] of this.#arrived) this.#follower?.arrived(digest, bytes);
  }

  arrived(digest: Digest, bytes: number): void {
    this.#arrived.set(digest, bytes);
    this.#follower?.arrived(digest, bytes);
  }

  /** Bytes that have come, of all layers. */
  get bytes(): number {
    return [...this.#arrived.values()].reduce((sum, bytes) => sum + bytes, 0);
  }

  lost(): void {
    this.#arrived.clear();
    this.#follower?.lost();
  }
}
