/** The real stages of one VMSAN_DIR, joined. */
import { access, stat } from "node:fs/promises";
import { AgentChannel } from "../agent/channel.ts";
import { ensureInitramfs } from "../boot/initramfs.ts";
import { sweepKernels } from "../boot/kernel-store.ts";
import { addKernel, ensureKernel, ensureModulesDisk } from "../boot/kernel.ts";
import { createEmptyDisk } from "../ext4/empty.ts";
import { growDisk } from "../ext4/grow.ts";
import type { CreateRequest, RegistryAccess } from "../model/api.ts";
import { VmsanError, messageOf } from "../model/errors.ts";
import type { BuilderName } from "../model/disk.ts";
import type { Image } from "../model/image.ts";
import type { ProgressSink } from "../model/progress.ts";
import type { Accelerator, DriverName } from "../model/vm.ts";
import {
  loadRegistries,
  openStore,
  parseImageSource,
  parsePlatform,
  pin,
  resolveImage,
  sharePin,
  sweepLeases,
  unpin,
  withLease,
} from "../oci/images.ts";
import type { ContentStore, Follow, Lease, RegistryOptions } from "../oci/images.ts";
import { ensureRootfs, listRootfs, sweepRootfs } from "../rootfs/cache.ts";
import {
  configOver,
  ensureRuntime,
  findRuntime,
  readCatalogue,
  sweepRuntimes,
} from "../runtimes/index.ts";
import { asPhase } from "../util/flow/phases.ts";
import { bootTimeoutMs } from "../util/boot-timeout.ts";
import { agentBinary, packageVersion } from "../util/package.ts";
import type { Layout } from "../util/paths.ts";
import { withRegistryVariables } from "../util/registry-env.ts";
import type { CleanupReport, Driver } from "../vmm/driver.ts";
import { chooseDriver } from "../vmm/choose.ts";
import { FakeDriver } from "../vmm/fake/driver.ts";
import { FirecrackerDriver, assumedKvm } from "../vmm/firecracker/driver.ts";
import { QemuDriver } from "../vmm/qemu/driver.ts";
import { sweepHost } from "../vmm/sweep.ts";
import { uidDirectory } from "../vmm/uids.ts";
import { cloneDisk } from "./starting/clone-disk.ts";
import { DiskAhead } from "./starting/disk-ahead.ts";
import { PrivateNetworkStore } from "../network/private/store.ts";
import { VolumeStore } from "../volumes/store.ts";
import { createNetworks } from "./networks.ts";
import type { HostNetworks } from "./networks.ts";
import type { EventLog } from "./records/entry.ts";
import type { Events } from "./records/events.ts";
import { createShares } from "./shares.ts";
import type { BootFiles, PreparedBase, Stages, Work } from "./stages.ts";
import { Admission } from "./starting/admission.ts";

/** Size of a base image's file system: room for the largest image, all of it holes. */
const BASE_BYTES = 64 * 2 ** 30;
const BOOT_LIMIT_MS: Record<Accelerator, number> = { kvm: 30_000, tcg: 90_000, none: 15_000 };

/** The stages, and what the routes use besides. */
export interface Host {
  stages: Stages;
  networks: HostNetworks;
  store: ContentStore;
  layout: Layout;
  /** Bytes that cached disk images occupy. */
  rootfsBytes(): Promise<number>;
  /** An image source or a runtime's name, ready and verified. */
  resolve(text: string, options: ResolveTextOptions): Promise<Image>;
  /** How registries are reached for a caller; default: as this process does. */
  registryOptions(access?: RegistryAccess): Promise<RegistryOptions>;
  close(): Promise<void>;
}

/** How to resolve what a user wrote. */
export interface ResolveTextOptions {
  pull: "missing" | "always" | "never";
  platform?: string;
  /** Keeps the blobs after return; without one they are only safe while this runs. */
  lease?: Lease;
  /** It must be a runtime of the catalogue: ERR_VALIDATION_RUNTIME otherwise. */
  runtime?: boolean;
  /** How the caller reaches registries; default: as this process does. */
  registry?: RegistryAccess;
  signal: AbortSignal;
  progress: ProgressSink;
  /** Who wants the layers of an image while they come from a registry. */
  follow?: Follow;
}

/** The file must be there and readable. @throws the given code */
async function requireFile(path: string, what: string, code: string): Promise<void> {
  try {
    await access(path);
  } catch (error) {
    throw new VmsanError(
      {
        code,
        message: `Cannot use the ${what} ${path}`,
        why: messageOf(error),
        fix: "Give the path of a file that exists and can be read.",
      },
      error,
    );
  }
}

/** The driver of that name; a record may name one that this version no longer has. */
function requireDriver(name: DriverName, drivers: readonly Driver[]): Driver {
  const found = drivers.find((driver) => driver.name === name);
  if (found !== undefined) return found;
  throw new VmsanError({
    code: "ERR_DRIVER_UNKNOWN",
    message: `Cannot use the driver ${name}`,
    why: `The drivers here are ${drivers.map((driver) => driver.name).join(", ")}.`,
    fix: "Remove the VM and create it again.",
  });
}

/** Notes what is fetched of an image, and tells of it at the end. */
function watchPull(progress: ProgressSink): {
  progress: ProgressSink;
  done: (image: Image, events: Events) => void;
} {
  const since = performance.now();
  const fetched = new Map<string, number>();
  return {
    progress: (event) => {
      if (event.phase === "pull" && event.item !== undefined && event.done !== undefined) {
        fetched.set(event.item, event.done);
      }
      progress(event);
    },
    done: ({ name, digest }, events) => {
      if (fetched.size === 0) return;
      const bytes = [...fetched.values()].reduce((sum, size) => sum + size, 0);
      const seconds = Math.round(performance.now() - since) / 1000;
      events.host("image.pulled", { image: name, digest, bytes, seconds });
    },
  };
}

/** With VMSAN_KVM=assume Firecracker is not told whether KVM works: it finds out at the start. */
function judgeOfKvm(): { kvm?: () => Promise<{ usable: boolean; reason: string }> } {
  if (process.env["VMSAN_KVM"] !== "assume") return {};
  return { kvm: async () => await Promise.resolve(assumedKvm) };
}

/** Join the stages for a VMSAN_DIR. */
export async function createHost(layout: Layout, log: EventLog, events: Events): Promise<Host> {
  const store = await openStore(layout.images);
  const agent = process.env["VMSAN_AGENT"] ?? agentBinary();
  const uidDir = uidDirectory(layout.probes);
  const drivers: Driver[] = [
    new FirecrackerDriver({ stateDir: layout.probes, uidDir, binDir: layout.bin, ...judgeOfKvm() }),
    new QemuDriver({ stateDir: layout.probes, uidDir }),
    new FakeDriver(agent),
  ];
  const networks = createNetworks(layout, log);
  const volumes = new VolumeStore(layout.volumes);
  const privateNetworks = new PrivateNetworkStore(layout.privateNetworks);

  const registryOptions = async (access?: RegistryAccess): Promise<RegistryOptions> => ({
    registries: await loadRegistries(layout.registriesFile),
    env: withRegistryVariables(process.env, access?.env),
    ...(access?.caFile === undefined ? {} : { caFile: access.caFile }),
    ...(access?.peers === undefined ? {} : { peers: access.peers }),
  });

  const resolve = async (text: string, options: ResolveTextOptions): Promise<Image> => {
    const catalogue = await readCatalogue(layout.runtimesFile);
    if (options.runtime === true) findRuntime(catalogue, text);
    const source = parseImageSource(text, { runtimes: Object.keys(catalogue) });
    const ready =
      source.kind === "runtime"
        ? await ensureRuntime({
            dir: layout.runtimes,
            name: source.name,
            catalogue,
            offline: options.pull === "never",
            signal: options.signal,
            progress: options.progress,
          })
        : { source, config: {} };
    const pull = watchPull(options.progress);
    const image = await asPhase(
      "image",
      async () =>
        await resolveImage(ready.source, {
          store,
          pull: options.pull,
          ...(options.platform === undefined ? {} : { platform: parsePlatform(options.platform) }),
          registry: await registryOptions(options.registry),
          ...(options.lease === undefined ? {} : { lease: options.lease }),
          ...(options.follow === undefined ? {} : { follow: options.follow }),
          onProgress: pull.progress,
          signal: options.signal,
        }),
    );
    pull.done(image, events);
    return { ...image, config: configOver(image.config, ready.config) };
  };

  const prepareBase = async (
    request: CreateRequest,
    vmId: string,
    work: Work,
  ): Promise<PreparedBase> => {
    if (request.rootfs !== undefined) {
      await requireFile(request.rootfs, "disk image", "ERR_SETUP_NO_ROOTFS");
      return { rootfs: request.rootfs };
    }
    const text = request.image ?? request.runtime ?? "base";
    return await withLease(
      store,
      `creation of ${vmId}`,
      async (lease) => {
        const flat = request.diskMode === "flat";
        const builder = process.env["VMSAN_BUILDER"] as BuilderName | undefined;
        const disk = new DiskAhead(work, (layers, options) =>
          ensureRootfs(layers, {
            cacheDir: layout.rootfs,
            sizeBytes: flat ? request.diskSizeBytes : BASE_BYTES,
            journal: flat,
            ...(builder === undefined ? {} : { builder }),
            ...options,
          }),
        );
        const image = await disk.during(
          async (follow) =>
            await resolve(text, {
              lease,
              pull: request.pull,
              runtime: request.image === undefined,
              ...(request.platform === undefined ? {} : { platform: request.platform }),
              ...(request.registry === undefined ? {} : { registry: request.registry }),
              signal: work.signal,
              progress: work.progress,
              follow,
            }),
        );
        const digests = [
          image.digest,
          image.configDigest,
          ...image.layers.map(({ digest }) => digest),
        ];
        await pin(store, vmId, digests);
        const { path } = await asPhase("disk", async () => await disk.of(image.layers));
        return {
          image: { name: text, digest: image.digest, config: image.config },
          ...(request.image === undefined ? { runtime: text } : {}),
          rootfs: path,
        };
      },
      work.signal,
    );
  };

  const bootFiles = async (path: string | undefined, work: Work): Promise<BootFiles> => {
    const { signal, progress } = work;
    await requireFile(agent, "guest agent", "ERR_SETUP_MISSING_BINARY");
    if (path !== undefined) await requireFile(path, "kernel", "ERR_SETUP_NO_KERNEL");
    const dir = layout.kernels;
    const stored =
      path === undefined
        ? await ensureKernel({ dir, signal, progress })
        : await addKernel({ dir, file: path, signal });
    const kernel = await ensureModulesDisk(stored, { dir, signal, progress });
    const initramfs = await ensureInitramfs({ dir: layout.initramfs, agent, kernel, signal });
    const { vmlinux, modulesDisk } = kernel;
    return { kernel: vmlinux, initramfs, ...(modulesDisk === undefined ? {} : { modulesDisk }) };
  };

  const stages: Stages = {
    prepareBase,
    shareBase: (from, to) => sharePin(store, from, to),
    releaseBase: (vmId) => unpin(store, vmId),
    bootFiles: async (path, work) => await asPhase("boot files", () => bootFiles(path, work)),
    chooseDriver: (requested, wishes) => chooseDriver(requested, drivers, wishes),
    driver: (name) => requireDriver(name, drivers),
    createUpper: (path, sizeBytes) => createEmptyDisk(path, { sizeBytes, journal: true }),
    cloneRoot: async (from, to, sizeBytes, signal) => {
      await cloneDisk(from, to, signal);
      if ((await stat(to)).size < sizeBytes) await growDisk(to, sizeBytes);
    },
    networks,
    volumes,
    privateNetworks,
    shares: createShares(layout, volumes, log),
    sweep: async (live) => {
      const isKnown = (id: string): boolean => live.has(id);
      const host = await sweepHost({ uidDir, vmsDir: layout.vms, isKnown });
      const network = await networks.sweep(live);
      const report: CleanupReport = {
        removed: [...host.removed, ...network.removed],
        failed: [...host.failed, ...network.failed],
      };
      for (const [what, sweep, dir] of [
        ["disk image", sweepRootfs, layout.rootfs],
        ["kernel", sweepKernels, layout.kernels],
        ["runtime", sweepRuntimes, layout.runtimes],
        ["volume", async () => await volumes.sweep(), layout.volumes],
        // Whoever holds the store's lock for longer keeps no daemon from starting.
        [
          "lease",
          async () => await sweepLeases(store, AbortSignal.timeout(10_000)),
          `${store.dir}/leases`,
        ],
      ] as const) {
        try {
          report.removed.push(...(await sweep(dir)).map((name) => `${what} ${name}`));
        } catch (error) {
          report.failed.push({ what: `${what}s not finished in ${dir}`, why: messageOf(error) });
        }
      }
      return report;
    },
    openChannel: (running, token) =>
      new AgentChannel({
        open: (signal) => running.connect(signal),
        token,
        build: packageVersion(),
        log: (line) => log.info(line),
      }),
    admission: new Admission(),
    bootLimitMs: (accelerator) => bootTimeoutMs(BOOT_LIMIT_MS[accelerator]),
  };
  return {
    stages,
    networks,
    store,
    layout,
    rootfsBytes: async () => {
      const entries = await listRootfs(layout.rootfs);
      return entries.reduce((sum, { summary }) => sum + summary.allocatedBytes, 0);
    },
    resolve,
    registryOptions,
    close: async () => networks.close(),
  };
}
