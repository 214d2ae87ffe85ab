/** One build with the direct builder, for bench/rootfs.ts: prints seconds, memory and bytes written. */
import { readFileSync } from "node:fs";
import type { LayerBlob } from "../src/model/image.ts";
import { peakBytes } from "../src/util/process/peak-memory.ts";
import { childrenCpu } from "./lib/measure.ts";
import { directBuilder } from "../src/rootfs/direct.ts";

const [list = "", image = "", size = ""] = process.argv.slice(2);
const layers = JSON.parse(readFileSync(list, "utf8")) as LayerBlob[];
const started = performance.now();
const summary = await directBuilder.build(
  layers,
  image,
  { sizeBytes: Number(size), journal: false },
  { signal: new AbortController().signal },
);
const seconds = (performance.now() - started) / 1000;
// With what children that have ended wrote.
const written = Number(/^wchar: (\d+)$/m.exec(readFileSync("/proc/self/io", "utf8"))?.[1]);
const { userCPUTime, systemCPUTime } = process.resourceUsage();
console.log(
  JSON.stringify({
    seconds,
    ...summary.seconds,
    entries: summary.entries,
    dataMb: summary.dataBytes / 1e6,
    writtenMb: written / 1e6,
    builderPeakMb: (summary.peakBytes ?? 0) / 2 ** 20,
    askerPeakMb: peakBytes() / 2 ** 20,
    cpuSeconds: (userCPUTime + systemCPUTime) / 1e6 + childrenCpu() / 1000,
  }),
);
