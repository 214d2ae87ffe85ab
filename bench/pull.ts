/**
 * bench/pull: `vmsan image pull` against `skopeo copy` to an OCI layout; same registry, same
 * run, taking turns. Prints medians of wall time, CPU time and peak memory as JSON lines.
 *
 *     node bench/pull.ts [--rounds N] [--big MIB]
 *
 * The daemon runs already, as it does for users; its CPU time and what its memory grows by are
 * counted as ours. Both check the digest and size of every blob; both sync their files. Needs
 * docker-registry, skopeo and GNU time. `ratio` is ours / skopeo's, of wall time: at most 1.0
 * is the aim.
 */
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { loadavg } from "node:os";
import { basename, join } from "node:path";
import { parseArgs } from "node:util";
import { gunzipSync } from "node:zlib";
import { startRegistry } from "../test/registry/docker-registry.ts";
import { makeImage, noise, tarOf, writeLayout } from "../test/registry/fixture.ts";
import { bench, measured } from "./lib/bench.ts";
import { daemonOf, ownHome, vmsan } from "./lib/home.ts";
import { median, processCpu } from "./lib/measure.ts";

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "5" },
    big: { type: "string", default: "500" },
    // Of the process that makes an image: which one, and where its layout goes.
    make: { type: "string" },
    layout: { type: "string", default: "" },
  },
});
const rounds = Number(values.rounds);
/** Most resident memory of the daemon in any run, in MiB. */
let daemonPeak = 0;

/** What one run took. */
interface Sample {
  /** Seconds. */
  wall: number;
  /** Seconds of user and system time; ours with the daemon's. */
  cpu: number;
  /** MiB: peak resident memory of the program; of our daemon what it grew by. */
  memory: number;
}

/** Run a program under GNU time, which has the kernel's own account of it. */
async function measure(file: string, args: string[], env = process.env): Promise<Sample> {
  const start = performance.now();
  const child = spawn("/usr/bin/time", ["-f", "%U %S %M", file, ...args], {
    stdio: ["ignore", "ignore", "pipe"],
    env,
  });
  measured(child);
  let err = "";
  child.stderr.on("data", (text: Buffer) => (err += text.toString()));
  const code = await new Promise<number | null>((resolve) => child.on("close", resolve));
  const wall = (performance.now() - start) / 1000;
  if (code !== 0) throw new Error(`${file} failed: ${err}`);
  const last = err.trim().split("\n").at(-1) ?? "";
  const [user = 0, system = 0, memory = 0] = last.split(" ").map(Number);
  return { wall, cpu: user + system, memory: memory / 1024 };
}

/** What the kernel says of the daemon: seconds of CPU, MiB now and at most. */
function daemonUse(pid: number): { cpu: number; now: number; most: number } {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  const mib = (name: string): number =>
    Number(new RegExp(`${name}:\\s+(\\d+)`).exec(status)?.[1]) / 1024;
  return { cpu: processCpu(pid) / 1000, now: mib("VmRSS"), most: mib("VmHWM") };
}

/** `vmsan image pull` as users call it: the daemon runs, the store has nothing of the image. */
async function measureOurs(
  pid: number,
  reference: string,
  env: NodeJS.ProcessEnv,
): Promise<Sample> {
  // Sets the highest memory to the present one.
  writeFileSync(`/proc/${pid}/clear_refs`, "5");
  const before = daemonUse(pid);
  const own = await measure(vmsan, ["image", "pull", reference], env);
  const after = daemonUse(pid);
  daemonPeak = Math.max(daemonPeak, after.most);
  return {
    wall: own.wall,
    cpu: own.cpu + after.cpu - before.cpu,
    memory: after.most - before.now,
  };
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

/** The images that are pulled. */
const IMAGES: Record<string, () => Buffer[]> = {
  [`one layer of ${values.big} MiB`]: () => [tarOf("big", noise(Number(values.big) << 20, 1))],
  realistic: () => realisticLayers().map((bytes) => gunzipSync(bytes)),
  "30 layers of 1 MiB": () =>
    Array.from({ length: 30 }, (_, index) => tarOf(`f${index}`, noise(1 << 20, index))),
  "30 layers of 50 kB": () =>
    Array.from({ length: 30 }, (_, index) => tarOf(`f${index}`, noise(50_000, index))),
};

/** Sizes and digests of an image's layers, from the layout it was written to. */
function layersOf(layout: string): { digest: string; size: number }[] {
  const blob = (digest: string): string =>
    readFileSync(join(layout, "blobs/sha256", digest.slice(7)), "utf8");
  const index = JSON.parse(readFileSync(join(layout, "index.json"), "utf8")) as {
    manifests: { digest: string }[];
  };
  const manifest = JSON.parse(blob(index.manifests[0]?.digest ?? "")) as {
    layers: { digest: string; size: number }[];
  };
  return manifest.layers;
}

/** Pull one image by both, in turns, and print what it took. */
async function compare(
  name: string,
  root: string,
  host: string,
  env: NodeJS.ProcessEnv & { VMSAN_DIR: string },
  pid: number,
): Promise<void> {
  const home = env.VMSAN_DIR;
  const layout = mkdtempSync(join(root, "layout-"));
  // By a process of its own: the more memory this one has, the longer it takes to start another.
  const make = [import.meta.filename, "--big", values.big, "--make", name, "--layout", layout];
  execFileSync(process.execPath, make, { stdio: "inherit" });
  const reference = `${host}/bench/${basename(layout).toLowerCase()}:1`;
  const push = ["copy", "-q", "--dest-tls-verify=false"];
  execFileSync("skopeo", [...push, `oci:${layout}:x`, `docker://${reference}`]);
  const layers = layersOf(layout);
  const ours: Sample[] = [];
  const theirs: Sample[] = [];
  for (let round = 0; round <= rounds; round += 1) {
    const other = mkdtempSync(join(root, "s-"));
    const copy = ["copy", "-q", "--src-tls-verify=false"];
    const pairs = [
      async () =>
        theirs.push(await measure("skopeo", [...copy, `docker://${reference}`, `oci:${other}:x`])),
      async () => ours.push(await measureOurs(pid, reference, env)),
    ];
    // In turns, so that neither always finds the disk busy with the other's writes.
    for (const run of round % 2 === 0 ? pairs : pairs.reverse()) {
      execFileSync("sync");
      await run();
    }
    for (const { digest } of layers) {
      const [a, b] = [join(home, "images"), other].map((dir) =>
        join(dir, "blobs/sha256", digest.slice(7)),
      );
      execFileSync("cmp", [a ?? "", b ?? ""]);
    }
    if (readdirSync(join(home, "images/partial")).length > 0)
      throw new Error("something is left over");
    execFileSync(vmsan, ["image", "rm", reference], { env, stdio: "ignore" });
    rmSync(other, { recursive: true });
    // The first round warms the caches.
    if (round === 0) ours.length = theirs.length = 0;
  }
  const bytes = layers.reduce((sum, layer) => sum + layer.size, 0);
  const of = (samples: Sample[]): Record<string, number> => ({
    wall: Number(median(samples.map(({ wall }) => wall)).toFixed(3)),
    best: Number(Math.min(...samples.map(({ wall }) => wall)).toFixed(3)),
    cpu: Number(median(samples.map(({ cpu }) => cpu)).toFixed(2)),
    memoryMiB: Math.round(Math.max(...samples.map(({ memory }) => memory))),
  });
  const [us, them] = [of(ours), of(theirs)];
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
      daemonPeakMiB: Math.round(daemonPeak),
      skopeo: them,
      ratio,
    }),
  );
}

const layers = IMAGES[values.make ?? ""];
if (layers === undefined) {
  await bench("pull", async (own) => {
    const env = ownHome(own);
    const registry = await startRegistry();
    own.defer(async () => await registry.stop());
    const pid = daemonOf(env);
    for (const name of Object.keys(IMAGES)) await compare(name, own.dir, registry.host, env, pid);
  });
} else {
  const image = makeImage({ layers: layers() });
  writeLayout(values.layout, [{ top: image.manifest, tag: "x", images: [image] }]);
}
