/** Disk images: what is asked of a builder, and what it says it did. */
import type { LayerBlob } from "./image.ts";

/** How a disk image is built. */
export type BuilderName = "direct" | "mke2fs";

/** What the file system should be. Same layers and same options give the same bytes. */
export interface DiskOptions {
  /** Size of the file system in bytes, a multiple of 4096; the file is sparse. */
  sizeBytes: number;
  /** With a journal (a disk that will be written); base images have none. */
  journal: boolean;
  /** Volume label, at most 16 bytes. */
  label?: string;
}

/** What a build did, for `--json` and the caches. */
export interface DiskSummary {
  builder: BuilderName;
  /** Version of the builder: part of every cache key. */
  builderVersion: string;
  sizeBytes: number;
  /** Bytes really allocated by the file. */
  allocatedBytes: number;
  /** Entries in the file system (files, directories, links …). */
  entries: number;
  /** Bytes of file content written. */
  dataBytes: number;
  /** Bytes left as holes. */
  holeBytes: number;
  /** Layer entries that an upper layer hides; their content is not in the image. */
  droppedEntries: number;
  /** What could not be kept, in words; empty for a faithful image. */
  warnings: string[];
  /** Seconds by stage. */
  seconds: Record<string, number>;
  /** Most memory of the process that built it, in bytes. */
  peakBytes?: number;
}

/** Layers that come while a disk is built of them. */
export interface ComingLayers {
  /** Where the bytes of each are until all are at its path; bottom to top. */
  readonly partials: string[];
  /**
   * Be told how many bytes of each layer there are, now and whenever there are more.
   * @returns ends it
   */
  follow(tell: (layer: number, bytes: number) => void): () => void;
}

/** What a build is told besides its order. */
export interface BuildContext {
  signal: AbortSignal;
  /** Compressed bytes read, and how many there are. */
  progress?: (done: number, total: number) => void;
  /** Where the layers are not all there yet. */
  coming?: ComingLayers;
}

/** Makes a disk image out of layers. All implementations pass one contract suite. */
export interface DiskBuilder {
  readonly name: BuilderName;
  readonly version: string;
  /**
   * Write the merged tree of `layers` (bottom to top) as an ext4 image at `output`, which
   * must not exist; on failure or abort nothing is left there.
   */
  build(
    layers: LayerBlob[],
    output: string,
    options: DiskOptions,
    context: BuildContext,
  ): Promise<DiskSummary>;
}
