/** What the building thread is told, and what it answers. */
import type { ErrorInfo } from "../model/errors.ts";
import type { DiskOptions } from "../model/disk.ts";
import type { LayerLimits, ReaderMemory } from "../layers/layers.ts";

/** The order to build. */
export interface BuildOrder {
  memory: ReaderMemory;
  limits: LayerLimits;
  output: string;
  /** `disk`: an ext4 image. `tar`: one archive with the merged tree. */
  format: "disk" | "tar";
  options: DiskOptions;
  /** UUID and hash seed of a disk. */
  identity: { uuid: Uint8Array; hashSeed: Uint8Array };
}

/** What has been built. */
export interface BuildResult {
  entries: number;
  dataBytes: number;
  holeBytes: number;
  droppedEntries: number;
  warnings: string[];
  seconds: Record<string, number>;
}

/** The one message of the building thread. */
export type BuildAnswer =
  | { kind: "done"; result: BuildResult }
  | { kind: "failed"; error: ErrorInfo };
