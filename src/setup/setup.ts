/**
 * setup/: makes a VMSAN_DIR ready. Takes its layout and what is wanted, gives a plan (what is
 * there, what would be fetched) and carries it out, each item on its own: one that fails stops no
 * other, and the report says how to get it. What is there costs no network and no process.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { access } from "node:fs/promises";
import { ensureKernel, ensureModulesDisk, hostArch, listKernels } from "../boot/kernel.ts";
import { VmsanError, asVmsanError, type ErrorInfo } from "../model/errors.ts";
import type { ProgressSink } from "../model/progress.ts";
import { ensureRuntime, findRuntime, readCatalogue, type Runtime } from "../runtimes/index.ts";
import { agentBinary } from "../util/package.ts";
import type { Layout } from "../util/paths.ts";
import { which } from "../util/which.ts";
import { pinnedVersion, provisionFirecracker } from "../vmm/firecracker/binaries.ts";
import { readBundle } from "./bundle.ts";
import { isRemote, lookForImage, pullRuntimeImage } from "./image.ts";
import { installCommand, installPrograms, missingPrograms, programsFor } from "./programs.ts";

/** What {@link planSetup} and {@link runSetup} take. */
export interface SetupOptions {
  layout: Layout;
  /** Names from the catalogue of runtimes; default `base`. */
  runtimes?: readonly string[];
  /** Fetch nothing. */
  offline?: boolean;
  /** Mirror and release of Debian packages instead of the host's. */
  mirror?: string;
  suite?: string;
  /** A bundle (file or unpacked directory) to take artefacts from first. */
  from?: string;
  /** Make runtimes again with today's packages. */
  refresh?: boolean;
  /**
   * Fetch Firecracker and its jailer when they are not there; `base` is the https or file address
   * or the directory that holds `vVERSION/ARCHIVE` with its checksum.
   */
  firecracker?: { base?: string; version?: string; sha256?: string };
  signal?: AbortSignal;
  progress?: ProgressSink;
}

/** What is known of an item before anything is done. */
export interface PlannedItem {
  name: string;
  /** `optional`: not there, and vmsan works without. */
  state: "ready" | "missing" | "optional";
  detail: string;
  /** About how much would be fetched, in bytes. */
  fetchBytes: number;
  /** About how much it would take on disk, in bytes. */
  diskBytes: number;
}

/** What became of an item. */
export interface SetupItem {
  name: string;
  /** `cached`: was there already; `skipped`: optional and not there. */
  status: "cached" | "made" | "skipped" | "failed";
  detail: string;
  error?: ErrorInfo;
  durationMs: number;
}

/** All items; `ok` when none failed. */
export interface SetupReport {
  ok: boolean;
  items: SetupItem[];
}

/** One thing to have. */
interface Item {
  name: string;
  look(): Promise<PlannedItem>;
  /** Get it. @returns what was got, in words */
  make(): Promise<string>;
}

const MIB = 2 ** 20;

/** Options in the shape that most functions take them. */
function context(options: SetupOptions): { signal?: AbortSignal; progress?: ProgressSink } {
  return {
    ...(options.signal === undefined ? {} : { signal: options.signal }),
    ...(options.progress === undefined ? {} : { progress: options.progress }),
  };
}

/** The error of `--offline` for something that is not there. */
function offlineError(what: string): VmsanError {
  return new VmsanError({
    code: "ERR_SETUP_OFFLINE",
    message: `Cannot get ${what} with --offline`,
    why: "It is not in VMSAN_DIR.",
    fix: "Run `vmsan setup` with a network, or `vmsan setup --from FILE` with a bundle.",
  });
}

/** Firecracker and its jailer: used when they are there, fetched when asked for. */
function firecrackerItem(options: SetupOptions): Item {
  const { layout, firecracker } = options;
  const find = async (name: string): Promise<string | undefined> => {
    const own = join(layout.bin, name);
    return existsSync(own) ? own : await which(name);
  };
  return {
    name: "firecracker",
    look: async () => {
      const found = await Promise.all([find("firecracker"), find("jailer")]);
      const ready = !found.includes(undefined);
      const missing = firecracker !== undefined && !ready;
      const otherwise = missing
        ? `release ${firecracker.version ?? pinnedVersion}`
        : "not on PATH; QEMU runs the VMs (--firecracker fetches it)";
      return {
        name: "firecracker",
        state: ready ? "ready" : missing ? "missing" : "optional",
        detail: ready ? found.join(", ") : otherwise,
        fetchBytes: missing ? 8 * MIB : 0,
        diskBytes: missing ? 8 * MIB : 0,
      };
    },
    make: async () => {
      const local = firecracker?.base !== undefined && !/^https?:/.test(firecracker.base);
      if (options.offline === true && !local) throw offlineError("Firecracker");
      const programs = await provisionFirecracker({
        binDir: layout.bin,
        arch: hostArch(),
        ...firecracker,
        ...context(options),
      });
      return `${programs.version} in ${layout.bin}`;
    },
  };
}

/** The guest agent: built with this package. */
function agentItem(): Item {
  const path = process.env["VMSAN_AGENT"] ?? agentBinary();
  return {
    name: "agent",
    look: async () => {
      const ready = await access(path).then(
        () => true,
        () => false,
      );
      return {
        name: "agent",
        state: ready ? "ready" : "missing",
        detail: path,
        fetchBytes: 0,
        diskBytes: 0,
      };
    },
    make: () =>
      Promise.reject(
        new VmsanError({
          code: "ERR_SETUP_NO_AGENT",
          message: `The guest agent ${path} is missing`,
          why: "It is part of the package; a checkout builds it with Go.",
          fix: "In a checkout run `npm run demo` once; else install vmsan again.",
        }),
      ),
  };
}

/** A kernel for guests. */
function kernelItem(options: SetupOptions): Item {
  const { layout } = options;
  return {
    name: "kernel",
    look: async () => {
      const kernels = await listKernels(layout.kernels);
      const [current] = kernels;
      // A kernel that an earlier version stored may lack the disk of its modules.
      const ready =
        current !== undefined &&
        (current.modulesDisk !== undefined || current.modules.length === 0);
      return {
        name: "kernel",
        state: ready ? "ready" : "missing",
        detail: ready ? kernels.map(({ version }) => version).join(", ") : "Debian's cloud kernel",
        fetchBytes: ready ? 0 : 24 * MIB,
        diskBytes: ready ? 0 : 50 * MIB,
      };
    },
    make: async () => {
      if (options.offline === true) throw offlineError("a kernel");
      const kernel = await ensureKernel({ dir: layout.kernels, ...context(options) });
      const whole = { dir: layout.kernels, fetch: true, ...context(options) };
      return (await ensureModulesDisk(kernel, whole)).version;
    },
  };
}

/** A runtime that is a registry's image. */
function imageItem(options: SetupOptions, name: string, image: string): Item {
  const { layout } = options;
  const remote = isRemote(image);
  return {
    name,
    look: async () => {
      const found = options.refresh === true ? undefined : await lookForImage(layout, image);
      return {
        name,
        state: found === undefined ? "missing" : "ready",
        detail: found === undefined ? image : `${image}, ${found.slice(0, 19)}`,
        fetchBytes: found === undefined && remote ? 50 * MIB : 0,
        diskBytes: found === undefined && remote ? 50 * MIB : 0,
      };
    },
    make: async () => {
      if (options.offline === true && remote) throw offlineError(`${image}, the image of ${name},`);
      const digest = await pullRuntimeImage(layout, image, {
        refresh: options.refresh === true,
        ...context(options),
      });
      return `${image}, ${digest.slice(0, 19)}`;
    },
  };
}

/** A runtime of the catalogue. */
function runtimeItem(
  options: SetupOptions,
  catalogue: Record<string, Runtime>,
  name: string,
): Item {
  const runtime = findRuntime(catalogue, name);
  if (runtime.image !== undefined) return imageItem(options, name, runtime.image);
  const request = {
    dir: options.layout.runtimes,
    name,
    catalogue,
    ...(options.mirror === undefined ? {} : { mirror: options.mirror }),
    ...(options.suite === undefined ? {} : { suite: options.suite }),
  };
  const [fetchMib, diskMib] = runtime.recipe?.kind === "node" ? [55, 45] : [70, 60];
  return {
    name,
    look: async () => {
      let ready = options.refresh !== true;
      try {
        await ensureRuntime({ ...request, offline: true });
      } catch (error) {
        if (!(error instanceof VmsanError) || error.code !== "ERR_RUNTIME_MISSING") throw error;
        ready = false;
      }
      return {
        name,
        state: ready ? "ready" : "missing",
        detail: runtime.description ?? "",
        fetchBytes: ready ? 0 : fetchMib * MIB,
        diskBytes: ready ? 0 : diskMib * MIB,
      };
    },
    make: async () => {
      const made = await ensureRuntime({
        ...request,
        offline: options.offline === true,
        refresh: options.refresh === true,
        ...context(options),
      });
      return made.built === undefined
        ? made.name
        : `${made.built.manifest.slice(0, 19)}, ${Object.keys(made.built.packages).length} packages`;
    },
  };
}

/** Distribution packages for what the other items need. */
function programsItem(options: SetupOptions, missingRecipes: Set<string | undefined>): Item {
  const needs = {
    debianImages: missingRecipes.has("debian"),
    nodeImages: missingRecipes.has("node"),
  };
  const programs = programsFor(needs);
  return {
    name: "programs",
    look: async () => {
      const missing = await missingPrograms(programs);
      return {
        name: "programs",
        state: missing.length === 0 ? "ready" : "missing",
        detail:
          missing.length === 0
            ? programs.map(({ program }) => program).join(", ")
            : missing.map(({ program, why }) => `${program} (${why})`).join(", "),
        fetchBytes: missing.length * 15 * MIB,
        diskBytes: missing.length * 50 * MIB,
      };
    },
    make: async () => {
      const missing = await missingPrograms(programs);
      await installPrograms(missing, { offline: options.offline === true, ...context(options) });
      return installCommand(missing).replace(/^apt-get install --no-install-recommends /, "");
    },
  };
}

/** All items, with their state. */
async function itemsOf(options: SetupOptions): Promise<{ item: Item; plan: PlannedItem }[]> {
  const catalogue = await readCatalogue(join(options.layout.root, "runtimes.json"));
  const runtimes = [...new Set(options.runtimes ?? ["base"])].map((name) =>
    runtimeItem(options, catalogue, name),
  );
  const others = [agentItem(), kernelItem(options), ...runtimes];
  const plans = await Promise.all(others.map((item) => item.look()));
  const missing = new Set<string | undefined>();
  for (const { name, state } of plans) {
    const recipe = state === "missing" ? catalogue[name]?.recipe : undefined;
    missing.add(recipe?.kind);
    // What lies below a Node.js runtime may have to be made as well.
    if (recipe?.kind === "node") missing.add("debian");
  }
  const first = [programsItem(options, missing), firecrackerItem(options)];
  const firstPlans = await Promise.all(first.map((item) => item.look()));
  return [...first, ...others].map((item, i) => {
    const plan = [...firstPlans, ...plans][i];
    if (plan === undefined) throw new Error("an item without a plan");
    return { item, plan };
  });
}

/**
 * What is there and what {@link runSetup} would fetch. Changes nothing, starts no process.
 * @throws ERR_VALIDATION_RUNTIME for an unknown runtime or a catalogue that cannot be used
 */
export async function planSetup(options: SetupOptions): Promise<PlannedItem[]> {
  return (await itemsOf(options)).map(({ plan }) => plan);
}

/** Bring one item about; its failure is its result. */
async function runItem(item: Item, plan: PlannedItem, options: SetupOptions): Promise<SetupItem> {
  const start = performance.now();
  const done = (rest: Omit<SetupItem, "name" | "durationMs">): SetupItem => ({
    name: item.name,
    ...rest,
    durationMs: Math.round(performance.now() - start),
  });
  if (plan.state !== "missing") {
    return done({ status: plan.state === "ready" ? "cached" : "skipped", detail: plan.detail });
  }
  options.progress?.({ phase: "setup", item: item.name, message: "starting" });
  try {
    return done({ status: "made", detail: await item.make() });
  } catch (error) {
    options.signal?.throwIfAborted();
    const known = asVmsanError(error, `Cannot set up ${item.name}`, "ERR_SETUP_ITEM");
    return done({ status: "failed", detail: known.message, error: known.toJSON() });
  }
}

/**
 * Get what is missing: programs first, then everything else at the same time.
 * Only an abort, an unusable bundle or an unknown runtime throws; all other failures are in the
 * report.
 */
export async function runSetup(options: SetupOptions): Promise<SetupReport> {
  if (options.from !== undefined) {
    const catalogue = await readCatalogue(join(options.layout.root, "runtimes.json"));
    await readBundle({
      layout: options.layout,
      catalogue,
      from: options.from,
      ...context(options),
    });
  }
  const [programs, ...others] = await itemsOf(options);
  if (programs === undefined) throw new Error("no items");
  const results = [await runItem(programs.item, programs.plan, options)];
  results.push(
    ...(await Promise.all(others.map(({ item, plan }) => runItem(item, plan, options)))),
  );
  options.signal?.throwIfAborted();
  return { ok: results.every(({ status }) => status !== "failed"), items: results };
}
