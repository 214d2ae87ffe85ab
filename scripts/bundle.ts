/**
 * Bundles every program of the package: node scripts/bundle.ts OUTPUT-DIRECTORY
 *
 * Entry points are found, not listed: src/index.ts (the SDK), src/cli/main.ts, and every file
 * that the code names with entryPoint("…"), which starts it as a process or thread of its own.
 */
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { join, resolve } from "node:path";
import { build } from "esbuild";

const root = resolve(import.meta.dirname, "..");

/** Source files that start as programs, below src/. */
export function entryPoints(): string[] {
  const found = new Set(["index.ts", "cli/main.ts"]);
  for (const name of readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" })) {
    if (!name.endsWith(".ts") || name.endsWith(".test.ts")) continue;
    const text = readFileSync(join(root, "src", name), "utf8");
    for (const [, entry] of text.matchAll(/entryPoint\(\s*"([^"]+)"/g)) found.add(`${entry}.ts`);
  }
  return [...found].sort().filter((name) => {
    if (existsSync(join(root, "src", name))) return true;
    throw new Error(`no such entry point: src/${name}`);
  });
}

if (process.argv[1] === import.meta.filename) {
  const outdir = process.argv[2];
  if (outdir === undefined) throw new Error("usage: node scripts/bundle.ts OUTPUT-DIRECTORY");
  const result = await build({
    absWorkingDir: root,
    entryPoints: entryPoints().map((name) => `src/${name}`),
    outbase: "src",
    outdir,
    bundle: true,
    splitting: true,
    format: "esm",
    platform: "node",
    target: "node22.18",
    chunkNames: "chunks/[hash]",
    // Stack traces of users should name functions as the sources do.
    keepNames: true,
    minifySyntax: true,
    minifyWhitespace: true,
    legalComments: "linked",
    metafile: true,
    // Dependencies in CommonJS call require() for Node's own modules.
    banner: {
      js: 'import{createRequire as __vmsanRequire}from"node:module";const require=__vmsanRequire(import.meta.url);',
    },
    logLevel: "warning",
  });
  const outputs = Object.entries(result.metafile.outputs);
  console.log(`${outputs.length} files, ${outputs.reduce((sum, [, o]) => sum + o.bytes, 0)} bytes`);
}
