/** What a building process and its thread are told, and what they answer. */
import type { ErrorInfo } from "../model/errors.ts";
import type { DiskOptions } from "../model/disk.ts";
import type { LayerBlob } from "../model/image.ts";
import type { LayerLimits, ReaderMemory } from "../layers/layers.ts";

/** What is to be built. */
export interface BuildRequest {
  limits: LayerLimits;
  /** Must not exist. */
  output: string;
  /** `disk`: an ext4 image. `tar`: one archive with the merged tree. */
  format: "disk" | "tar";
  options: DiskOptions;
  /** UUID and hash seed of a disk. */
  identity: { uuid: Uint8Array; hashSeed: Uint8Array };
}

/** The first message to a building process. */
export interface ProcessOrder extends BuildRequest {
  /** Bottom to top. */
  layers: LayerBlob[];
  /** Decompress with Node's public streams only. */
  streams: boolean;
  /** Where each layer's bytes are until all are there; absent when all of all are. */
  partials?: string[];
}

/** Later messages to it: so many bytes of a layer are there by now. */
export interface Arrived {
  layer: number;
  bytes: number;
}

/** What its building thread is started with. */
export interface ThreadOrder extends BuildRequest {
  memory: ReaderMemory;
}

/** What has been built. */
export interface BuildResult {
  entries: number;
  dataBytes: number;
  holeBytes: number;
  droppedEntries: number;
  warnings: string[];
  seconds: Record<string, number>;
  /** Most memory of the building process, in bytes. */
  peakBytes?: number;
}

/** The last message of the thread, and of the process. */
export type BuildAnswer =
  | { kind: "done"; result: BuildResult }
  | { kind: "failed"; error: ErrorInfo };

/** A message of a building process: compressed bytes read so far, then the answer. */
export type ProcessMessage = { kind: "progress"; done: number } | BuildAnswer;
