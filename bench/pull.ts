/**
 * bench/pull: `vmsan` pulls against `skopeo copy` to an OCI layout; same registry, same
 * run, taking turns. Prints medians of wall time, CPU time and peak memory as JSON lines.
 *
 *     node bench/pull.ts [--rounds N] [--big MIB]
 *
 * Both check the digest and size of every blob; both sync their files. Needs docker-registry,
 * skopeo and GNU time. `ratio` is ours / skopeo's, of wall time: at most 1.0 is the aim.
 */
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { gunzipSync } from "node:zlib";
import { build } from "esbuild";
import { startRegistry } from "../test/registry/docker-registry.ts";
import { makeImage, noise, tarOf, writeLayout } from "../test/registry/fixture.ts";

const { values } = parseArgs({
  options: { rounds: { type: "string", default: "5" }, big: { type: "string", default: "500" } },
});
const rounds = Number(values.rounds);
const root = mkdtempSync(join(tmpdir(), "vmsan-bench-pull-"));

/** What one run took. */
interface Sample {
  /** Seconds. */
  wall: number;
  /** Seconds of user and system time. */
  cpu: number;
  /** Peak resident memory in MiB. */
  memory: number;
  /** Seconds without the program's start, which a daemon has behind it; skopeo does not say. */
  inside: number;
}

/** Run a program under GNU time, which has the kernel's own account of it. */
async function measure(file: string, args: string[]): Promise<Sample> {
  const start = performance.now();
  const child = spawn("/usr/bin/time", ["-f", "%U %S %M", file, ...args], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  let out = "";
  let err = "";
  child.stdout.on("data", (text: Buffer) => (out += text.toString()));
  child.stderr.on("data", (text: Buffer) => (err += text.toString()));
  const code = await new Promise<number | null>((resolve) => child.on("close", resolve));
  const wall = (performance.now() - start) / 1000;
  if (code !== 0) throw new Error(`${file} failed: ${err}`);
  const last = err.trim().split("\n").at(-1) ?? "";
  const [user = 0, system = 0, memory = 0] = last.split(" ").map(Number);
  const inside = Number(out.trim().split("\n").at(-1));
  return { wall, cpu: user + system, memory: memory / 1024, inside };
}

/** The middle one. */
function median(numbers: number[]): number {
  const sorted = [...numbers].sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? 0;
}

/** An image as real ones are: text and programs of this machine in several layers. */
function realisticLayers(): Buffer[] {
  const dirs = [
    "/usr/share/perl",
    "/usr/lib/python3",
    "/usr/share/doc",
    "/usr/share/locale",
    "/usr/lib/git-core",
    "/usr/bin",
    "/usr/share/i18n",
    "/usr/share/zoneinfo",
  ];
  return dirs.flatMap((dir) => {
    try {
      return [
        execFileSync("tar", ["-C", "/", "-czf", "-", dir.slice(1)], {
          maxBuffer: 2 ** 31,
          stdio: ["ignore", "pipe", "ignore"],
        }),
      ];
    } catch {
      // A directory that this machine lacks, or a file in it that changes: one layer fewer.
      return [];
    }
  });
}

// As it is shipped: bundled JavaScript, not TypeScript that Node has to strip first.
const program = join(root, "pull-once.mjs");
await build({
  entryPoints: [join(import.meta.dirname, "../test/registry/pull-once.ts")],
  outfile: program,
  bundle: true,
  platform: "node",
  format: "esm",
  logLevel: "error",
});
const registry = await startRegistry();
try {
  const images = {
    [`one layer of ${values.big} MiB`]: makeImage({
      layers: [tarOf("big", noise(Number(values.big) << 20, 1))],
    }),
    realistic: makeImage({ layers: realisticLayers().map((bytes) => gunzipSync(bytes)) }),
    "30 small layers": makeImage({
      layers: Array.from({ length: 30 }, (_, index) => tarOf(`f${index}`, noise(50_000, index))),
    }),
  };
  for (const [index, [name, image]] of Object.entries(images).entries()) {
    const layout = join(root, `layout-${index}`);
    writeLayout(layout, [{ top: image.manifest, tag: "x", images: [image] }]);
    const reference = `${registry.host}/bench/i${index}:1`;
    const push = [
      "copy",
      "-q",
      "--dest-tls-verify=false",
      `oci:${layout}:x`,
      `docker://${reference}`,
    ];
    execFileSync("skopeo", push);
    const ours: Sample[] = [];
    const theirs: Sample[] = [];
    for (let round = 0; round <= rounds; round += 1) {
      const [mine, other] = [mkdtempSync(join(root, "o-")), mkdtempSync(join(root, "s-"))];
      const copy = [
        "copy",
        "-q",
        "--src-tls-verify=false",
        `docker://${reference}`,
        `oci:${other}:x`,
      ];
      const pairs = [
        async () => theirs.push(await measure("skopeo", copy)),
        async () => ours.push(await measure(process.execPath, [program, mine, reference])),
      ];
      // In turns, so that neither always finds the disk busy with the other's writes.
      for (const run of round % 2 === 0 ? pairs : pairs.reverse()) {
        execFileSync("sync");
        await run();
      }
      for (const { digest } of image.layers) {
        const [a, b] = [mine, other].map((dir) =>
          readFileSync(join(dir, "blobs/sha256", digest.slice(7))),
        );
        if (a === undefined || b === undefined || !a.equals(b))
          throw new Error(`${digest} differs`);
      }
      if (readdirSync(join(mine, "partial")).length > 0) throw new Error("something is left over");
      rmSync(mine, { recursive: true });
      rmSync(other, { recursive: true });
      // The first round warms the caches.
      if (round === 0) ours.length = theirs.length = 0;
    }
    const bytes = image.layers.reduce((sum, layer) => sum + layer.size, 0);
    const of = (samples: Sample[]): Record<string, number> => ({
      wall: Number(median(samples.map(({ wall }) => wall)).toFixed(3)),
      best: Number(Math.min(...samples.map(({ wall }) => wall)).toFixed(3)),
      inside: Number(median(samples.map(({ inside }) => inside)).toFixed(3)),
      cpu: Number(median(samples.map(({ cpu }) => cpu)).toFixed(2)),
      memoryMiB: Math.round(Math.max(...samples.map(({ memory }) => memory))),
    });
    const [us, them] = [of(ours), of(theirs)];
    delete them["inside"];
    const ratio = Number(((us["wall"] ?? 0) / (them["wall"] ?? 1)).toFixed(2));
    const load = Number(loadavg()[0]?.toFixed(1));
    console.log(
      JSON.stringify({
        bench: "pull",
        name,
        mib: Math.round(bytes / 2 ** 20),
        rounds,
        load,
        vmsan: us,
        skopeo: them,
        ratio,
      }),
    );
  }
} finally {
  await registry.stop();
  rmSync(root, { recursive: true, force: true });
}
