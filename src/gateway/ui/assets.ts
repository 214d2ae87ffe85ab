/**
 * ui/: the dashboard's page. Takes what src/ui became as a bundle, gives it to browsers; all that the page
 * does then goes through the native face with a key, as for any other client.
 *
 * assets.ts: the bundle's files in memory: shipped ones, or in a checkout made of the sources once they have
 * changed.
 */
import { createHash } from "node:crypto";
import { mkdir, readFile, readdir, rename, rm } from "node:fs/promises";
import { extname, join } from "node:path";
import { promisify } from "node:util";
import { gzip } from "node:zlib";
import { VmsanError, errnoOf } from "../../model/errors.ts";
import { packageRoot, shippedUi } from "../../util/package.ts";
import { run } from "../../util/run.ts";

/** One file as it is sent. */
export interface Asset {
  type: string;
  plain: Buffer;
  gzip: Buffer;
  /** Strong, with its quotes. */
  etag: string;
  /** Named by its content: may be kept for ever. */
  lasting: boolean;
}

/** Files by their name below /ui/. */
export type Assets = ReadonlyMap<string, Asset>;

const TYPES: Record<string, string> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
};

/** Milliseconds that bundling may take on a loaded machine. */
const BUNDLE_MS = 120_000;

const compressed = promisify(gzip);

/** Every file below a directory that goes into the bundle, with what bundles it. */
async function sourcesKey(): Promise<string> {
  const hash = createHash("sha256");
  const ui = join(packageRoot, "src/ui");
  const names = (await readdir(ui, { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
  const files = ["package-lock.json", "scripts/lib/ui-bundle.ts"].map((n) => join(packageRoot, n));
  for (const file of [...files, ...names.toSorted()]) {
    hash
      .update(`${file.slice(packageRoot.length)}\0`)
      .update(await readFile(file))
      .update("\0");
  }
  return hash.digest("hex").slice(0, 16);
}

/** The bundle of a checkout, made unless it is there. @returns its directory */
async function bundled(): Promise<string> {
  const cache = join(packageRoot, ".cache", "ui");
  const place = join(cache, await sourcesKey());
  const there = await readdir(place).catch(() => []);
  if (there.length > 0) return place;
  const aside = join(cache, `.tmp-${process.pid}`);
  await mkdir(cache, { recursive: true });
  const done = await run(process.execPath, [join(packageRoot, "scripts/bundle-ui.ts"), aside], {
    timeoutMs: BUNDLE_MS,
  });
  if (done.code !== 0) {
    await rm(aside, { recursive: true, force: true });
    throw new VmsanError({
      code: "ERR_GATEWAY_UI",
      message: "Cannot bundle the dashboard",
      why: done.stderr.trim().split("\n").slice(-5).join("\n"),
      fix: "Run `npm install` in this checkout, which brings the bundler.",
    });
  }
  await rename(aside, place).catch(async (error: unknown) => {
    // Another gateway was faster; what it made is the same.
    await rm(aside, { recursive: true, force: true });
    if (errnoOf(error) !== "ENOTEMPTY" && errnoOf(error) !== "EEXIST") throw error;
  });
  return place;
}

async function load(directory: string): Promise<Assets> {
  const assets = new Map<string, Asset>();
  for (const name of await readdir(directory)) {
    const type = TYPES[extname(name)];
    if (type === undefined) continue;
    const plain = await readFile(join(directory, name));
    assets.set(name, {
      type,
      plain,
      gzip: await compressed(plain, { level: 9 }),
      etag: `"${createHash("sha256").update(plain).digest("hex").slice(0, 32)}"`,
      lasting: name !== "index.html",
    });
  }
  return assets;
}

/** The dashboard's files. @throws ERR_GATEWAY_UI when a checkout cannot make them */
export async function loadAssets(): Promise<Assets> {
  return await load(shippedUi ?? (await bundled()));
}
