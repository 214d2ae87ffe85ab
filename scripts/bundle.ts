/**
 * Bundles every program of the package: node scripts/bundle.ts OUTPUT-DIRECTORY
 *
 * Entry points are found, not listed: src/index.ts (the SDK), src/cli/main.ts, and every file
 * that the code names with entryPoint("…") or workerUrl(…), which starts it as a process or thread.
 */
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { build } from "esbuild";
import { bundleUi } from "./lib/ui-bundle.ts";

const root = resolve(import.meta.dirname, "..");

/** An entry point as esbuild takes it. */
interface Entry {
  in: string;
  out: string;
}

/** TypeScript sources below src/ with their text, tests left out. */
function sources(): { name: string; text: string }[] {
  return readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts") && !name.endsWith(".test.ts"))
    .map((name) => ({ name, text: readFileSync(join(root, "src", name), "utf8") }));
}

/** What starts as a program or a thread, with its place in the output. */
export function entryPoints(): Entry[] {
  const programs = new Set(["index", "cli/main"]);
  const threads = new Set<string>();
  for (const { name, text } of sources()) {
    for (const [, entry] of text.matchAll(/\bentryPoint\(\s*"([^"]+)"/g)) programs.add(entry ?? "");
    // Named from the file beside it; in the output that code may be in any program or chunk.
    for (const [, thread] of text.matchAll(/\bworkerUrl\(\s*import\.meta\.url,\s*"([^"]+)"/g)) {
      threads.add(`${dirname(name)}/${thread}`);
    }
  }
  const places = new Set(["chunks", ...[...programs].map((program) => dirname(program))]);
  const entries = [...programs].map((name) => ({ in: `src/${name}.ts`, out: name }));
  for (const thread of threads) {
    for (const place of places) {
      entries.push({ in: `src/${thread}.ts`, out: join(place, basename(thread)) });
    }
  }
  for (const entry of entries) {
    if (!existsSync(join(root, entry.in))) throw new Error(`no such entry point: ${entry.in}`);
  }
  return entries;
}

if (process.argv[1] === import.meta.filename) {
  const outdir = process.argv[2];
  if (outdir === undefined) throw new Error("usage: node scripts/bundle.ts OUTPUT-DIRECTORY");
  const result = await build({
    absWorkingDir: root,
    entryPoints: entryPoints(),
    outdir,
    bundle: true,
    splitting: true,
    format: "esm",
    platform: "node",
    target: "node22.18",
    chunkNames: "chunks/[hash]",
    // Stack traces of users should name functions as the sources do.
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
  await bundleUi(join(outdir, "ui"));
  const outputs = Object.entries(result.metafile.outputs);
  console.log(`${outputs.length} files, ${outputs.reduce((sum, [, o]) => sum + o.bytes, 0)} bytes`);
}
