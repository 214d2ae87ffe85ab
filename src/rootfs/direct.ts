/**
 * rootfs/: layers become a disk image, by one of two builders, and images are kept in a cache.
 *
 * direct.ts: the builder that writes the file system itself, in one pass over the compressed layers.
 * Needs no privileges and no tools.
 */
import { stat } from "node:fs/promises";
import type { DiskBuilder } from "../model/disk.ts";
import { runBuild } from "./build.ts";
import { identityOf, imageKey } from "./identity.ts";

/** Changes whenever the same layers would give other bytes. */
const VERSION = "3";

/** The direct writer. */
export const directBuilder: DiskBuilder = {
  name: "direct",
  version: VERSION,
  async build(layers, output, options, context) {
    const started = performance.now();
    const identity = identityOf(imageKey(layers, options, "direct", VERSION));
    const result = await runBuild(layers, { output, format: "disk", options, identity }, context);
    const { blocks } = await stat(output);
    return {
      builder: "direct",
      builderVersion: VERSION,
      sizeBytes: options.sizeBytes,
      allocatedBytes: blocks * 512,
      ...result,
      seconds: { ...result.seconds, total: (performance.now() - started) / 1000 },
    };
  },
};
