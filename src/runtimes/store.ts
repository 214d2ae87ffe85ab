/**
 * Runtimes made here, kept below one directory: `NAME-HASH/` is an OCI layout with a
 * `runtime.json` that says how it was made. The hash is of the recipe, so that a changed recipe
 * is another directory; a directory appears by one rename, whole.
 */
import { createHash } from "node:crypto";
import { access, mkdir, readFile, readdir, rename, rm, writeFile } from "node:fs/promises";
import { arch as machine } from "node:os";
import { join } from "node:path";
import { VmsanError, errnoOf } from "../model/errors.ts";
import type { Digest, ImageSource } from "../model/image.ts";
import type { ProgressSink } from "../model/progress.ts";
import { parseImageSource } from "../oci/source.ts";
import { removeAbandoned, sweepAbandoned } from "../util/files/abandoned.ts";
import { syncDirectory, temporarySibling } from "../util/atomic.ts";
import { withLock } from "../util/lock.ts";
import { endBuilders } from "./builder.ts";
import { findRuntime, type Runtime } from "./catalogue.ts";
import type { RuntimeConfig } from "./config.ts";
import { debianSources, hostRelease } from "./debian-sources.ts";
import { debianBuilderVersion, makeDebianTar, packagesOf, readFromTar } from "./debian.ts";
import {
  addLayer,
  beginLayout,
  finishLayout,
  hasLayer,
  shareLayer,
  type LayoutLayer,
} from "./layout.ts";
import { makeNodeTar, nodeBuilderVersion } from "./node.ts";

/** What is known of a runtime that was made here; also the content of its runtime.json. */
export interface BuiltRuntime {
  schema: 1;
  name: string;
  /** Hash of everything that was asked for; the directory's name ends in it. */
  recipeHash: string;
  manifest: Digest;
  /** Bottom to top. */
  layers: LayoutLayer[];
  /** Versions of what is in it. */
  packages: Record<string, string>;
  createdAt: string;
}

/** What {@link ensureRuntime} takes. */
export interface EnsureRuntimeOptions {
  /** Directory of runtimes made here, e.g. VMSAN_DIR/runtimes. */
  dir: string;
  name: string;
  catalogue: Record<string, Runtime>;
  /** Never touch the network: ERR_RUNTIME_MISSING instead. */
  offline?: boolean;
  /** Make it again although it is there, with today's packages. */
  refresh?: boolean;
  /** Instead of the recipe's and the host's: mirror and release of Debian packages. */
  mirror?: string;
  suite?: string;
  signal?: AbortSignal;
  progress?: ProgressSink;
}

/** An image source that can be used now. */
export interface ReadyRuntime {
  name: string;
  /** A registry image as the catalogue has it, or the OCI layout made here. */
  source: ImageSource;
  /** What the catalogue says over the image's configuration; in those made here it is inside. */
  config: RuntimeConfig;
  /** Nothing had to be made. */
  cached: boolean;
  /** For those made here. */
  built?: BuiltRuntime;
}

/** Hash of all that decides what the recipe makes; needs no other program. */
async function recipeHash(
  options: EnsureRuntimeOptions,
  name: string,
  runtime: Runtime,
): Promise<string> {
  const { id, codename } = await hostRelease();
  const parts: unknown[] = [1, name, machine(), runtime, options.mirror, options.suite];
  if (runtime.recipe?.kind === "debian") parts.push(debianBuilderVersion, { id, codename });
  if (runtime.recipe?.kind === "node") {
    const below = findRuntime(options.catalogue, runtime.recipe.from);
    parts.push(nodeBuilderVersion, await recipeHash(options, runtime.recipe.from, below));
  }
  return createHash("sha256").update(JSON.stringify(parts)).digest("hex").slice(0, 16);
}

/** A runtime's description if its directory is whole. */
async function readBuilt(dir: string): Promise<BuiltRuntime | undefined> {
  let built: BuiltRuntime;
  try {
    built = JSON.parse(await readFile(join(dir, "runtime.json"), "utf8")) as BuiltRuntime;
    await access(join(dir, "index.json"));
  } catch (error) {
    // Not there, or not ours: as if it had never been made.
    if (errnoOf(error) === "ENOENT" || error instanceof SyntaxError) return undefined;
    throw error;
  }
  if (built.schema !== 1 || !Array.isArray(built.layers)) return undefined;
  for (const layer of built.layers) if (!(await hasLayer(dir, layer))) return undefined;
  return built;
}

/** The runtimes made here that are whole. */
export async function listBuiltRuntimes(dir: string): Promise<(BuiltRuntime & { path: string })[]> {
  const found: (BuiltRuntime & { path: string })[] = [];
  const names = await readdir(dir).catch((): string[] => []); // not made yet: nothing in it
  for (const name of names.sort()) {
    if (name.startsWith(".")) continue;
    const built = await readBuilt(join(dir, name));
    if (built !== undefined) found.push({ ...built, path: join(dir, name) });
  }
  return found;
}

/** Build a Debian base into the new layout `home`. */
async function buildDebian(
  options: EnsureRuntimeOptions,
  runtime: Runtime,
  home: string,
  scratch: string,
): Promise<Pick<BuiltRuntime, "layers" | "packages">> {
  if (runtime.recipe?.kind !== "debian") throw new Error("not a Debian recipe");
  const recipe = {
    ...runtime.recipe,
    ...(options.mirror === undefined ? {} : { mirror: options.mirror }),
    ...(options.suite === undefined ? {} : { suite: options.suite }),
  };
  const archive = join(scratch, "base.tar");
  await makeDebianTar({
    recipe,
    sources: await debianSources(recipe),
    output: archive,
    scratch,
    ...(runtime.user === undefined ? {} : { user: runtime.user }),
    ...(options.signal === undefined ? {} : { signal: options.signal }),
    ...(options.progress === undefined ? {} : { progress: options.progress }),
  });
  const packages = packagesOf(await readFromTar(archive, "./var/lib/dpkg/status"));
  const layer = await addLayer(home, archive, options.signal);
  return { layers: [layer], packages };
}

/** Build Node.js over its base into the new layout `home`. */
async function buildNode(
  options: EnsureRuntimeOptions,
  runtime: Runtime,
  home: string,
  scratch: string,
): Promise<Pick<BuiltRuntime, "layers" | "packages">> {
  if (runtime.recipe?.kind !== "node") throw new Error("not a Node.js recipe");
  const below = await ensureLocked({ ...options, name: runtime.recipe.from, refresh: false });
  for (const layer of below.built.layers) await shareLayer(below.home, home, layer);
  const archive = join(scratch, "node.tar");
  const versions = await makeNodeTar({
    recipe: runtime.recipe,
    output: archive,
    scratch,
    ...(options.signal === undefined ? {} : { signal: options.signal }),
    ...(options.progress === undefined ? {} : { progress: options.progress }),
  });
  const layer = await addLayer(home, archive, options.signal);
  return {
    layers: [...below.built.layers, layer],
    packages: { ...below.built.packages, ...versions },
  };
}

/** A made runtime and where. */
interface Made {
  home: string;
  built: BuiltRuntime;
  cached: boolean;
}

/** Find or make a runtime with a recipe; the lock of the directory is held. */
async function ensureLocked(options: EnsureRuntimeOptions): Promise<Made> {
  const { dir, name } = options;
  const runtime = findRuntime(options.catalogue, name);
  const hash = await recipeHash(options, name, runtime);
  const home = join(dir, `${name}-${hash}`);
  const existing = options.refresh === true ? undefined : await readBuilt(home);
  if (existing !== undefined) return { home, built: existing, cached: true };
  if (options.offline === true) throw offlineError(name);

  const scratch = temporarySibling(home);
  const layout = temporarySibling(home);
  try {
    const work = join(scratch, "work");
    await mkdir(work, { recursive: true });
    await beginLayout(layout);
    const build = runtime.recipe?.kind === "node" ? buildNode : buildDebian;
    const { layers, packages } = await build(options, runtime, layout, work);
    const manifest = await finishLayout(layout, name, layers, runtime);
    const built: BuiltRuntime = {
      schema: 1,
      name,
      recipeHash: hash,
      manifest,
      layers,
      packages,
      createdAt: new Date().toISOString(),
    };
    await writeFile(join(layout, "runtime.json"), `${JSON.stringify(built, null, 2)}\n`);
    // Before the runtime is in its place: whoever finds it there looks for no scratch.
    await rm(scratch, { recursive: true, force: true });
    // What is there is broken or to be replaced.
    await rm(home, { recursive: true, force: true });
    await rename(layout, home);
    await syncDirectory(dir);
    return { home, built, cached: false };
  } catch (error) {
    if (errnoOf(error) !== "ENOSPC") throw error;
    throw new VmsanError(
      {
        code: "ERR_DISK_FULL",
        message: `Cannot make the runtime ${name} in ${dir}`,
        why: "The disk is full.",
        fix: "It needs about 1.5 GB free while it is made, a tenth of that afterwards.",
      },
      error,
    );
  } finally {
    for (const left of [scratch, layout]) await rm(left, { recursive: true, force: true });
  }
}

/** The error of `--offline` for something that would have to be fetched. */
function offlineError(name: string): VmsanError {
  return new VmsanError({
    code: "ERR_RUNTIME_MISSING",
    message: `The runtime ${name} is not here`,
    why: "It would have to be made from packages of the network, and --offline forbids that.",
    fix: `Run \`vmsan setup --runtime ${name}\` with a network, or \`vmsan setup --from DIR\` with a bundle.`,
  });
}

/**
 * The image source of a runtime, made now if its recipe has not been made yet. When it is there:
 * no network, no other program, no lock.
 * @throws ERR_VALIDATION_RUNTIME, ERR_RUNTIME_MISSING, and the builders' errors
 */
export async function ensureRuntime(options: EnsureRuntimeOptions): Promise<ReadyRuntime> {
  const { dir, name } = options;
  const runtime = findRuntime(options.catalogue, name);
  if (runtime.image !== undefined) {
    const { user, workdir, env, cmd } = runtime;
    const config: RuntimeConfig = { user, workdir, env, cmd };
    return { name, source: parseImageSource(runtime.image), config, cached: true };
  }
  if (options.refresh !== true) {
    const home = join(dir, `${name}-${await recipeHash(options, name, runtime)}`);
    const built = await readBuilt(home);
    if (built !== undefined) return ready(name, { home, built, cached: true });
    if (options.offline === true) throw offlineError(name);
  }
  const abort = options.signal === undefined ? {} : { signal: options.signal };
  return await withLock(
    join(dir, ".lock"),
    async () => {
      await removeAbandoned(dir, removeBuild);
      return ready(name, await ensureLocked(options));
    },
    // Another process may be making one: that takes its time.
    { ...abort, timeoutMs: 45 * 60_000 },
  );
}

/** What users of a made runtime need. */
function ready(name: string, made: Made): ReadyRuntime {
  const source: ImageSource = { kind: "oci", path: made.home, tag: name };
  return { name, source, config: {}, cached: made.cached, built: made.built };
}

/** Remove a killed build's directory, and end what still runs for it. */
async function removeBuild(path: string): Promise<void> {
  await endBuilders(join(path, "work"));
  await rm(path, { recursive: true, force: true, maxRetries: 5 });
}

/**
 * End and remove what killed builds left, unless somebody is building.
 * @returns the names of what was removed
 */
export async function sweepRuntimes(dir: string): Promise<string[]> {
  return await sweepAbandoned(dir, removeBuild);
}

/**
 * Remove made runtimes that the catalogue's recipes no longer lead to.
 * @returns the names of the removed directories
 */
export async function pruneRuntimes(
  dir: string,
  catalogue: Record<string, Runtime>,
  signal?: AbortSignal,
): Promise<string[]> {
  return await withLock(
    join(dir, ".lock"),
    async () => {
      await removeAbandoned(dir, removeBuild);
      const keep = new Set<string>();
      for (const [name, runtime] of Object.entries(catalogue)) {
        if (runtime.recipe === undefined) continue;
        keep.add(`${name}-${await recipeHash({ dir, name, catalogue }, name, runtime)}`);
      }
      const removed = (await readdir(dir)).filter(
        (name) => !name.startsWith(".") && !keep.has(name),
      );
      for (const name of removed) await rm(join(dir, name), { recursive: true, force: true });
      return removed;
    },
    signal === undefined ? {} : { signal },
  );
}

/** What {@link importRuntime} takes. */
export interface ImportRuntimeOptions {
  dir: string;
  name: string;
  catalogue: Record<string, Runtime>;
  /** A whole runtime directory of another machine, below `dir`'s file system; it is moved. */
  from: string;
  signal?: AbortSignal;
}

/**
 * Take a runtime that was made elsewhere as if this host's recipe had made it.
 * @returns false when there was one already
 * @throws ERR_SETUP_BUNDLE when it is not whole or not that runtime
 */
export async function importRuntime(options: ImportRuntimeOptions): Promise<boolean> {
  const { dir, name, catalogue, from } = options;
  const runtime = findRuntime(catalogue, name);
  const hash = await recipeHash({ dir, name, catalogue }, name, runtime);
  const home = join(dir, `${name}-${hash}`);
  return await withLock(
    join(dir, ".lock"),
    async () => {
      if ((await readBuilt(home)) !== undefined) return false;
      const built = await readBuilt(from);
      if (built === undefined || built.name !== name) {
        throw new VmsanError({
          code: "ERR_SETUP_BUNDLE",
          message: `Cannot take the runtime ${name} from the bundle`,
          why: "Its directory is not a whole runtime of that name.",
          fix: "Make the bundle again: vmsan setup --bundle FILE.",
        });
      }
      const mine = `${JSON.stringify({ ...built, recipeHash: hash }, null, 2)}\n`;
      await writeFile(join(from, "runtime.json"), mine);
      await rm(home, { recursive: true, force: true });
      await rename(from, home);
      await syncDirectory(dir);
      return true;
    },
    options.signal === undefined ? {} : { signal: options.signal },
  );
}
