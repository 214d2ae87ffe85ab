/** Builds with the direct builder as users have it: bundled, in a process of its own. */
import { spawn } from "node:child_process";
import { copyFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { buildSync } from "esbuild";
import { entryPoints } from "../../scripts/bundle.ts";
import type { LayerBlob } from "../../src/model/image.ts";
import { measured } from "./bench.ts";

const root = join(import.meta.dirname, "../..");
/** Bytes of the disks that are made. */
export const DISK_BYTES = 10 * 2 ** 30;

/** What one build took; see rootfs-direct.ts. */
export type BuildFigures = Record<string, number>;

/** Run a program that must succeed. @returns what it printed, the last 64 KiB of both streams */
export async function run(file: string, args: string[]): Promise<{ out: string; err: string }> {
  const child = spawn(file, args, { stdio: ["ignore", "pipe", "pipe"] });
  measured(child);
  const said = { out: "", err: "" };
  for (const [stream, name] of [
    [child.stdout, "out"],
    [child.stderr, "err"],
  ] as const) {
    stream.on("data", (text: Buffer) => {
      said[name] = (said[name] + text.toString()).slice(-65_536);
    });
  }
  await new Promise<void>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => {
      if (code === 0) resolve();
      else reject(new Error(`${file}: ${signal ?? `status ${code}`}: ${said.err}`));
    });
  });
  return said;
}

/**
 * Bundle the builder's programs, without types to strip at every start.
 * @param dir made here
 * @returns the path of the program to run
 */
export function bundleDirect(dir: string): string {
  // Programs and threads lie where the package has them: the builder is a process of its own.
  const needed = entryPoints().filter(({ out }) => out.startsWith("rootfs/"));
  buildSync({
    absWorkingDir: root,
    entryPoints: [...needed, { in: "bench/rootfs-direct.ts", out: "rootfs/bench" }],
    bundle: true,
    platform: "node",
    format: "esm",
    outdir: join(dir, "dist"),
    logLevel: "error",
  });
  copyFileSync(join(root, "package.json"), join(dir, "package.json"));
  return join(dir, "dist", "rootfs", "bench.js");
}

/** Build a disk of these layers, look at it, and remove it. @param dir for files in between */
export async function buildDirect(
  program: string,
  dir: string,
  layers: LayerBlob[],
): Promise<BuildFigures> {
  const list = join(dir, "layers.json");
  const image = join(dir, "direct.ext4");
  writeFileSync(list, JSON.stringify(layers));
  const { out } = await run(process.execPath, [program, list, image, String(DISK_BYTES)]);
  const figures = JSON.parse(out) as BuildFigures;
  figures.allocatedMb = (statSync(image).blocks * 512) / 1e6;
  rmSync(image);
  return figures;
}
