/**
 * Random images through the whole direct builder: e2fsck must be silent, and the tree on the disk
 * must be umoci's (as root, where umoci is installed).
 *
 *   node test/fuzz/trees.ts [--seconds 60] [--seed N] [--runs N]
 *
 * Where umoci refuses an image, ours need not; the other way round it is a finding. A failure is
 * shrunk, and prints the layers and its seed.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import * as fc from "fast-check";
import { directBuilder } from "../../src/rootfs/direct.ts";
import { compareWithUmoci, randomImage } from "../../src/rootfs/random-trees.ts";

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "60" },
    seed: { type: "string", default: String(Date.now() % 1_000_000_000) },
    runs: { type: "string", default: "1000000" },
  },
});
const counts: Record<string, number> = {};
await fc.assert(
  fc.asyncProperty(randomImage, async (image) => {
    const dir = mkdtempSync(join(tmpdir(), "vmsan-trees-"));
    try {
      const outcome = await compareWithUmoci(directBuilder, dir, image);
      counts[outcome] = (counts[outcome] ?? 0) + 1;
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }
  }),
  {
    numRuns: Number(values.runs),
    seed: Number(values.seed),
    interruptAfterTimeLimit: Number(values.seconds) * 1000,
  },
);
console.log(JSON.stringify(counts));
