/**
 * bench/rootfs: layers to disk, this project's way against the others, in one run on one image.
 *
 *   node bench/rootfs.ts [--layers FILE.json] [--megabytes 1000] [--files 40000] [--runs 3]
 *
 * Without --layers, a synthetic image of four gzip layers is made. Compared: the floor (all layers
 * decompressed at once to nothing by node:zlib), the direct builder, `tar -x` + `mkfs.ext4 -d` +
 * `tune2fs`, and `umoci unpack` + `mkfs.ext4 -d`. Prints JSON. For honest numbers the machine must
 * have nothing else to do: the load is printed too.
 */
import { createReadStream, mkdirSync, readFileSync, rmSync } from "node:fs";
import { loadavg } from "node:os";
import { join } from "node:path";
import { Writable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { parseArgs } from "node:util";
import { createGunzip } from "node:zlib";
import { makeTar, storeLayer, storeLayout, type TestEntry } from "../src/layers/testing.ts";
import type { LayerBlob } from "../src/model/image.ts";
import { bench } from "./lib/bench.ts";
import { content } from "./lib/content.ts";
import { buildDirect, bundleDirect, DISK_BYTES, run as sh } from "./lib/direct.ts";
import { median } from "./lib/measure.ts";

const { values } = parseArgs({
  options: {
    layers: { type: "string" },
    megabytes: { type: "string", default: "1000" },
    files: { type: "string", default: "40000" },
    runs: { type: "string", default: "3" },
    only: { type: "string" },
  },
});
/** The measurement's directory. */
let dir = "";

/** Four layers; sizes of files as in distributions: many small ones, few large. */
function syntheticLayers(megabytes: number, files: number): LayerBlob[] {
  const layers: LayerBlob[] = [];
  for (const [layer, share] of [0.4, 0.3, 0.2, 0.1].entries()) {
    const count = Math.floor(files * share);
    const mean = (megabytes * 1e6 * share) / count;
    const entries: TestEntry[] = [];
    for (let i = 0; i < count; i++) {
      const bytes = Math.floor(i % 100 === 0 ? mean * 60 : mean * 0.4);
      entries.push({ path: `layer${layer}/dir${i % 300}/file${i}`, data: content(bytes, i) });
    }
    layers.push(storeLayer(dir, makeTar(entries), "gzip"));
  }
  return layers;
}

/** Seconds that a step takes. */
async function timed(step: () => Promise<unknown> | void): Promise<number> {
  const started = performance.now();
  await step();
  return (performance.now() - started) / 1000;
}

/** Decompress everything at once, keep nothing. */
async function floor(layers: LayerBlob[]): Promise<void> {
  await Promise.all(
    layers.map(({ path }) =>
      pipeline(
        createReadStream(path, { highWaterMark: 256 * 1024 }),
        createGunzip({ chunkSize: 256 * 1024 }),
        new Writable({ write: (_chunk, _encoding, done) => done() }),
      ),
    ),
  );
}

/** mkfs.ext4 -d. */
async function mkfs(tree: string): Promise<void> {
  const image = join(dir, "mkfs.ext4");
  await sh("mkfs.ext4", [
    "-q",
    "-F",
    "-m",
    "0",
    "-O",
    "^has_journal",
    "-d",
    tree,
    image,
    `${DISK_BYTES / 1024}k`,
  ]);
  await sh("tune2fs", ["-L", "bench", image]);
  rmSync(image);
}

/** tar -x of each layer, then mkfs. */
async function tarAndMkfs(layers: LayerBlob[]): Promise<void> {
  const tree = join(dir, "tree");
  mkdirSync(tree);
  for (const { path } of layers)
    await sh("tar", ["-xzpf", path, "-C", tree, "--numeric-owner", "--xattrs"]);
  await mkfs(tree);
  await sh("rm", ["-rf", tree]);
}

/** umoci unpack, then mkfs. */
async function umociAndMkfs(oci: string): Promise<void> {
  const bundle = join(dir, "bundle");
  const rootless = process.getuid?.() === 0 ? [] : ["--rootless"];
  await sh("umoci", ["unpack", ...rootless, "--image", oci, bundle]);
  await mkfs(join(bundle, "rootfs"));
  await sh("rm", ["-rf", bundle]);
}

await bench("rootfs", async (own) => {
  dir = own.dir;
  const layers =
    values.layers === undefined
      ? syntheticLayers(Number(values.megabytes), Number(values.files))
      : (JSON.parse(readFileSync(values.layers, "utf8")) as LayerBlob[]);
  const runs = Number(values.runs);
  const seconds: Record<string, number[]> = { floor: [], direct: [], tarMkfs: [], umociMkfs: [] };
  let last: Record<string, number> = {};
  const program = bundleDirect(join(dir, "program"));
  const cpu: Record<string, number[]> = { floor: [], direct: [] };
  const before = loadavg()[0];
  // Taking turns, so that whatever else happens on the machine hits all alike.
  for (let run = 0; run < runs; run++) {
    const from = process.cpuUsage();
    seconds.floor?.push(await timed(() => floor(layers)));
    const { user, system } = process.cpuUsage(from);
    cpu.floor?.push((user + system) / 1e6);
    last = await buildDirect(program, dir, layers);
    cpu.direct?.push(last.cpuSeconds ?? Number.NaN);
    seconds.direct?.push(last.seconds ?? Number.NaN);
  }
  if (values.only !== "direct") {
    seconds.tarMkfs?.push(await timed(() => tarAndMkfs(layers)));
    const oci = storeLayout(join(dir, "oci"), layers);
    seconds.umociMkfs?.push(await timed(() => umociAndMkfs(oci)));
  }
  const of = (name: string): number => median(seconds[name] ?? []);
  console.log(
    JSON.stringify(
      {
        compressedMb: layers.reduce((sum, { size }) => sum + size, 0) / 1e6,
        load: { before, after: loadavg()[0] },
        seconds,
        cpuSeconds: cpu,
        direct: last,
        ratios: {
          directToFloor: of("direct") / of("floor"),
          tarMkfsToDirect: of("tarMkfs") / of("direct"),
          umociMkfsToDirect: of("umociMkfs") / of("direct"),
          directToFloorCpu: median(cpu.direct ?? []) / median(cpu.floor ?? []),
          // Files end within a block; tables; and that nothing is written twice.
          writtenToData: (last.writtenMb ?? 0) / (last.dataMb ?? 1),
          writtenToAllocated: (last.writtenMb ?? 0) / (last.allocatedMb ?? 1),
        },
      },
      undefined,
      2,
    ),
  );
});
