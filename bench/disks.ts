/**
 * bench/disks: what a disk costs beside decompressing its layers, in one run by turns.
 *
 *   node bench/disks.ts [--runs 3] [--only mixed-gzip,small-zstd] [--scale 1]
 *
 * Cases: an ordinary image (1.6 GB, 65,000 entries, four layers) with gzip and zstd; 200,000 small
 * files with both; a million empty files; 300,000 files of one path. Each build's processor time is
 * compared with that of `gzip -dc`, `pigz -dc` or `zstd -dc` for the same layers. Prints a line of
 * JSON for each.
 */
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { makeTar, storeLayer } from "../src/layers/testing.ts";
import type { Compression, LayerBlob } from "../src/model/image.ts";
import { bench } from "./lib/bench.ts";
import { content } from "./lib/content.ts";
import { buildDirect, bundleDirect, run, type BuildFigures } from "./lib/direct.ts";
import { median, report } from "./lib/measure.ts";

const { values } = parseArgs({
  options: {
    runs: { type: "string", default: "3" },
    only: { type: "string" },
    scale: { type: "string", default: "1" },
  },
});

/** One image, and the programs that only decompress it. */
interface Case {
  name: string;
  compression: Compression;
  layers: number;
  /** Files of each layer. */
  files: number;
  path: (layer: number, file: number) => string;
  bytes: (file: number) => number;
  against: string[];
}

const tree = (layer: number, file: number): string =>
  `srv/layer${layer}/dir${file % 300}/file-${file}`;
/** Many small files and few large ones, 25 KB on average. */
const mixed = (file: number): number => (file % 100 === 0 ? 1_500_000 : 2000 + (file % 16_000));
const small = (file: number): number => (file * 7919) % 3000;
const common = { path: tree, layers: 4 };
const gzip = { compression: "gzip", against: ["gzip", "pigz"] } as const;
const zstd = { compression: "zstd", against: ["zstd"] } as const;
const one = { ...gzip, layers: 1, against: ["gzip"] };
const cases: Case[] = [gzip, zstd].flatMap(({ compression, against }) => [
  {
    ...common,
    name: `mixed-${compression}`,
    files: 16_250,
    bytes: mixed,
    compression,
    against: [...against],
  },
  {
    ...common,
    name: `small-${compression}`,
    files: 50_000,
    bytes: small,
    compression,
    against: [...against],
  },
]);
cases.push(
  { ...one, name: "empty", files: 1_000_000, path: tree, bytes: () => 0 },
  { ...one, name: "one-path", files: 300_000, path: () => "a/b", bytes: () => 3000 },
);

/** Make a case's layers. */
function makeLayers(dir: string, { compression, layers, files, path, bytes }: Case): LayerBlob[] {
  const count = Math.ceil(files * Number(values.scale));
  mkdirSync(dir);
  return Array.from({ length: layers }, (_, layer) => {
    const entries = Array.from({ length: count }, (__, file) => ({
      path: path(layer, file),
      data: content(bytes(file), file + layer),
    }));
    return storeLayer(dir, makeTar(entries), compression);
  });
}

/** Processor seconds of `TOOL -dc` for these layers, one after the other. */
async function decompress(tool: string, layers: LayerBlob[]): Promise<number> {
  const script = 'TIMEFORMAT="%U %S"; time "$0" -dc < "$1" > /dev/null';
  let seconds = 0;
  for (const { path } of layers) {
    const { err } = await run("bash", ["-c", script, tool, path]);
    const [user = Number.NaN, system = Number.NaN] = err.trim().split(" ").map(Number);
    seconds += user + system;
  }
  return seconds;
}

await bench("disks", async ({ dir }) => {
  const program = bundleDirect(join(dir, "program"));
  const wanted = values.only?.split(",");
  for (const each of cases) {
    if (wanted?.includes(each.name) === false) continue;
    const place = join(dir, each.name);
    const layers = makeLayers(place, each);
    const cpu = Object.fromEntries(
      ["build", ...each.against].map((name) => [name, [] as number[]]),
    );
    let last: BuildFigures = {};
    // Taking turns, so that whatever else happens on the machine hits all alike.
    for (let turn = 0; turn < Number(values.runs); turn++) {
      for (const tool of each.against) cpu[tool]?.push(await decompress(tool, layers));
      last = await buildDirect(program, place, layers);
      cpu.build?.push(last.cpuSeconds ?? Number.NaN);
    }
    const build = median(cpu.build ?? []);
    report({
      case: each.name,
      cpuRatioTo: Object.fromEntries(
        each.against.map((tool) => [tool, build / median(cpu[tool] ?? [])]),
      ),
      cpuSeconds: cpu,
      compressedMb: layers.reduce((sum, { size }) => sum + size, 0) / 1e6,
      build: last,
    });
    rmSync(place, { recursive: true });
  }
});
