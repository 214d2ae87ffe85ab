/** The SDK's entrance: all VMs and images of one VMSAN_DIR. */
import type { CreateRequest, VmList, VmPage, VmView, WarmReply } from "../model/api.ts";
import type { BuildReport } from "../model/api/builds.ts";
import type { DoctorReport } from "../model/doctor.ts";
import type { VmsanEvent } from "../model/event.ts";
import type { MetricFamily } from "../model/metrics.ts";
import type { VmSample } from "../model/stats.ts";
import { parseVmRef } from "../util/names.ts";
import { layoutOf, vmsanDir } from "../util/paths.ts";
import { VmsanError } from "../model/errors.ts";
import { invalid } from "../util/units.ts";
import { Builds } from "./builds/builds.ts";
import type { BuildOptions } from "./builds/builds.ts";
import { ClusterCalls } from "../cluster/calls.ts";
import type { ClusterOptions } from "../cluster/options.ts";
import { Daemon } from "./daemon.ts";
import type { EventOptions } from "./events.ts";
import type { WorkOptions } from "./daemon.ts";
import { Hold } from "./hold.ts";
import { Images } from "./images.ts";
import { Kernels } from "./kernels.ts";
import { createVm, removeVm, startVm, stopVm, updateVm } from "./lives.ts";
import type { StartOptions, UpdateOptions } from "./lives.ts";
import { createRequest } from "./options.ts";
import type { CreateOptions } from "./options.ts";
import type { CloneOptions } from "./clone-options.ts";
import { vmPath } from "./paths.ts";
import { both, loadTracing, traced } from "./tracing/tracing.ts";
import type { SpanAttributes } from "./tracing/span.ts";
import type { Backend, RemoteServer } from "./transport.ts";
import { Snapshots, snapshotPath } from "./snapshots.ts";
import { PrivateNetworks } from "./private-networks.ts";
import { Volumes } from "./volumes.ts";
import type { Vm } from "./vm.ts";

export type { ClusterOptions };

/** Where and how to reach the daemon. */
export interface VmsanOptions {
  /** VMSAN_DIR; default from the environment, else ~/.vmsan. */
  dir?: string;
  /** Start the daemon when it does not run; default true. */
  start?: boolean;
  /**
   * A gateway on another machine instead of a daemon on this one; default from VMSAN_URL and
   * VMSAN_KEY when `dir` is not given.
   */
  remote?: RemoteServer;
  /**
   * VMs as pods of a Kubernetes cluster whose nodes are hosts of vmsan (docs/cluster.md); `true`: of the current
   * context. What pods cannot do is refused with ERR_CLUSTER_UNSUPPORTED.
   */
  cluster?: ClusterOptions | true;
  /** With a cluster: `host` has {@link Vmsan.images} be this machine's, for whoever looks into them; default: none are. */
  images?: "host";
}

/** What a span says of the VM that was made. */
function aboutVm({ id, driver, accelerator }: VmView): SpanAttributes {
  return { "vmsan.vm": id, "vmsan.driver": driver, "vmsan.accelerator": accelerator };
}

/** The gateway that the environment names; undefined when it names none. */
function remoteServer(): RemoteServer | undefined {
  const { VMSAN_URL: url, VMSAN_KEY: key } = process.env;
  if (url === undefined || url === "") return undefined;
  if (/^https?:\/\//.test(url) && URL.canParse(url) && key !== undefined && key !== "") {
    return { url, key };
  }
  if (/^https?:\/\//.test(url) && URL.canParse(url)) {
    throw new VmsanError({
      code: "ERR_VALIDATION_FLAGS",
      message: `Cannot ask ${url}`,
      why: "VMSAN_URL is set, and VMSAN_KEY is not.",
      fix: "Set VMSAN_KEY to a key of that host (`vmsan key create` makes one there), or unset VMSAN_URL for this machine's own VMs.",
    });
  }
  throw invalid(
    "FLAGS",
    "VMSAN_URL",
    url,
    "It takes http://HOST:PORT or https://HOST:PORT of a `vmsan serve`, and VMSAN_KEY its API key.",
    "Set both, or neither for this machine's own VMs.",
  );
}

/** What takes calls instead of this machine's daemon; undefined: nothing does. */
function elsewhere(options: VmsanOptions): RemoteServer | Backend | undefined {
  const { cluster, remote, dir } = options;
  if (cluster !== undefined) return new ClusterCalls(cluster === true ? {} : cluster);
  return remote ?? (dir === undefined ? remoteServer() : undefined);
}

/** microVMs from OCI images. One object for each VMSAN_DIR; it holds no connection open. */
export class Vmsan {
  readonly daemon: Daemon;
  /** Whether VMs are pods of a cluster. */
  readonly cluster: boolean;
  readonly images: Images;
  readonly kernels: Kernels;
  readonly snapshots: Snapshots;
  /** Volumes, which outlive VMs. */
  readonly volumes: Volumes;
  /** Private networks, in which VMs reach each other. */
  readonly networks: PrivateNetworks;
  readonly builds: Builds;

  constructor(options: VmsanOptions = {}) {
    const dir = options.dir ?? vmsanDir();
    this.daemon = new Daemon(layoutOf(dir), options.start ?? true, elsewhere(options));
    this.cluster = options.cluster !== undefined;
    const own = this.cluster && options.images === "host";
    this.images = new Images(own ? new Daemon(layoutOf(dir), options.start ?? true) : this.daemon);
    this.kernels = new Kernels(this.daemon);
    this.snapshots = new Snapshots(this.daemon);
    this.volumes = new Volumes(this.daemon);
    this.networks = new PrivateNetworks(this.daemon);
    this.builds = new Builds(this.daemon);
  }

  /** The object for a VM; what works in a guest is loaded with the first one. */
  private async vm(view: VmView, hold?: Hold): Promise<Vm> {
    const { Vm } = await import("./vm.ts");
    // Commands are started at once, without a moment to load anything.
    await loadTracing();
    return new Vm(this.daemon, view, hold);
  }

  /**
   * Make a VM and wait until commands can run in it.
   * @throws VmsanError ERR_VALIDATION_*, ERR_IMAGE_*, ERR_DISK_*, ERR_VM_*; nothing is left then
   */
  async create(
    options: CreateOptions,
    work: WorkOptions & { onVm?: (id: string) => void } = {},
  ): Promise<Vm> {
    if (options.snapshot !== undefined) {
      const [vm] = await this.clone(options.snapshot, { ...options, count: 1 }, work);
      if (vm === undefined) throw new TypeError("A clone without a VM");
      return vm;
    }
    return await this.createFrom(await this.requestOf(options, work), work);
  }

  /** The daemon's request for these options. */
  private async requestOf(options: CreateOptions, work: WorkOptions): Promise<CreateRequest> {
    const request = createRequest(options);
    if (options.image === undefined || this.cluster) return request;
    return { ...request, ...(await this.images.source(options.image, request.pull, work)) };
  }

  /**
   * Have ready what the first VM of these options starts from, as after one that has run: made behind the answer,
   * once the host has nothing else to do. A daemon can, a gateway and a cluster cannot.
   */
  async warm(options: CreateOptions = {}, work: WorkOptions = {}): Promise<WarmReply> {
    const body = await this.requestOf(options, work);
    return await this.daemon.call<WarmReply>("POST", "/v1/warm", { body, repeat: true });
  }

  /**
   * As {@link create}, from a complete request in plain numbers.
   * @throws VmsanError as create does
   */
  async createFrom(
    request: CreateRequest,
    work: WorkOptions & { onVm?: (id: string) => void } = {},
  ): Promise<Vm> {
    const hold = request.ephemeral ? new Hold(this.daemon) : undefined;
    const { image, runtime } = request;
    const view = await traced(
      "vmsan.create",
      { "vmsan.image": image ?? runtime },
      async (phases) => {
        const onProgress = both(phases, work.onProgress);
        return await createVm(this.daemon, request, { ...work, onProgress, hold });
      },
      aboutVm,
    );
    return await this.vm(view, hold);
  }

  /**
   * Make VMs of a snapshot, which go on where it was taken.
   * @param snapshot its ID or name
   * @param options what is to be different; `count` of them
   * @throws ERR_VM_SNAPSHOT_NOT_FOUND, ERR_SNAPSHOT_INCOMPATIBLE, ERR_SNAPSHOT_DAMAGED; no VM is left then
   */
  async clone(
    snapshot: string,
    options: CloneOptions = {},
    work: WorkOptions & { onVm?: (id: string) => void } = {},
  ): Promise<Vm[]> {
    return await this.makeAlike(snapshotPath(snapshot, "vms"), options, work);
  }

  /**
   * Make VMs of a running one, which go on where it is now; it goes on too.
   * @param vm its ID or name
   */
  async fork(
    vm: string,
    options: CloneOptions = {},
    work: WorkOptions & { onVm?: (id: string) => void } = {},
  ): Promise<Vm[]> {
    return await this.makeAlike(vmPath(vm, "fork"), options, work);
  }

  private async makeAlike(
    path: string,
    options: CloneOptions,
    work: WorkOptions & { onVm?: (id: string) => void },
  ): Promise<Vm[]> {
    const { cloneRequest } = await import("./clone-options.ts");
    const request = cloneRequest(options);
    const holds = new Map<string, Hold>();
    let release = (): void => undefined;
    const making = {
      body: request,
      ...work,
      onVm: (id: string): void => {
        if (request.ephemeral) {
          const hold = new Hold(this.daemon);
          hold.on(id);
          holds.set(id, hold);
        }
        work.onVm?.(id);
      },
      ...(request.ephemeral
        ? {
            // One connection holds all of them, until each has one of its own.
            onHold: (letGo: () => void) => {
              release = letGo;
            },
          }
        : {}),
    };
    const views = await traced("vmsan.clone", { "vmsan.count": request.count }, async (phases) => {
      const onProgress = both(phases, work.onProgress);
      return await this.daemon.streamed<VmView[]>("POST", path, { ...making, onProgress });
    });
    await Promise.all([...holds.values()].map(async (hold) => await hold.take()));
    release();
    return await Promise.all(views.map(async (view) => await this.vm(view, holds.get(view.id))));
  }

  /** Build an image of a Dockerfile or a template; see {@link Builds.build}. */
  async build(options: BuildOptions, work: WorkOptions = {}): Promise<BuildReport> {
    return await traced("vmsan.build", {}, async (phases) => {
      const onProgress = both(phases, work.onProgress);
      return await this.builds.build(options, { ...work, onProgress });
    });
  }

  /** What the daemon's host can do, and what is in the way; each check is progress as it ends. */
  async doctor(work: WorkOptions = {}): Promise<DoctorReport> {
    return await this.daemon.streamed<DoctorReport>("POST", "/v1/doctor", {
      repeat: true,
      ...work,
    });
  }

  /** All VMs as they are now. @param options `project`: only of that one */
  async list(options: { project?: string } = {}): Promise<VmView[]> {
    return (await this.survey(options)).vms;
  }

  /** All VMs as objects, for whoever takes up many of them. */
  async vms(): Promise<Vm[]> {
    return await Promise.all((await this.list()).map(async (view) => await this.vm(view)));
  }

  /** All VMs, and those whose records cannot be read. @param options `project`: only VMs of that one */
  async survey(options: { project?: string } = {}): Promise<VmList> {
    const all: VmList = { vms: [], damaged: [] };
    let after: string | undefined;
    do {
      const { vms, damaged, next } = await this.page({ ...options, ...(after && { after }) });
      all.vms.push(...vms);
      // A gateway and a cluster tell of none that cannot be read.
      all.damaged.push(...(damaged ?? []));
      after = next;
    } while (after !== undefined);
    return all;
  }

  /** As many VMs as one reply has room for, oldest first. @param options `after`: behind a page's `next` */
  async page(options: { project?: string; after?: string } = {}): Promise<VmPage> {
    const query = new URLSearchParams(options).toString();
    return await this.daemon.call<VmPage>("GET", query === "" ? "/v1/vms" : `/v1/vms?${query}`);
  }

  /**
   * What happens on the host, as it happens: VMs that start and end, commands, pulls, refused
   * connections. Ends by its signal, or by leaving the loop.
   */
  async *events(options: EventOptions = {}): AsyncGenerator<VmsanEvent> {
    const { readEvents } = await import("./events.ts");
    yield* readEvents(this.daemon, options);
  }

  /**
   * What VMs use now; see `ratesOf` for what they use between two moments. None is woken.
   * @param refs IDs or names; none: all VMs
   * @param options `project`: only of its VMs
   * @throws ERR_VM_NOT_FOUND
   */
  async stats(
    refs: readonly string[] = [],
    { project }: { project?: string } = {},
  ): Promise<VmSample[]> {
    const query = new URLSearchParams(refs.map((ref): [string, string] => ["vm", parseVmRef(ref)]));
    if (project !== undefined) query.set("project", project);
    const path = `/v1/stats?${query.toString()}`;
    return (await this.daemon.call<{ vms: VmSample[] }>("GET", path)).vms;
  }

  /** Figures of the daemon for monitoring; `vmsan serve` writes them for Prometheus at /metrics. */
  async metrics(): Promise<MetricFamily[]> {
    return (await this.daemon.call<{ families: MetricFamily[] }>("GET", "/v1/metrics")).families;
  }

  /** A VM by its ID or name. @throws ERR_VM_NOT_FOUND */
  async get(ref: string): Promise<Vm> {
    return await this.vm(await this.daemon.call<VmView>("GET", vmPath(ref)));
  }

  /** Start a stopped VM. @throws ERR_VM_NOT_STOPPED */
  async start(ref: string, work: StartOptions = {}): Promise<Vm> {
    const view = await traced(
      "vmsan.start",
      { "vmsan.vm": ref },
      async (phases) =>
        await startVm(this.daemon, ref, { ...work, onProgress: both(phases, work.onProgress) }),
      aboutVm,
    );
    return await this.vm(view);
  }

  /** Change a VM's size: the disk also while it runs. @throws ERR_VM_NOT_STOPPED, ERR_DRIVER_UNSUPPORTED */
  async update(ref: string, options: UpdateOptions): Promise<Vm> {
    return await this.vm(await updateVm(this.daemon, ref, options));
  }

  /**
   * Stop a VM: gracefully first, by force after the grace time.
   * @param graceMs milliseconds, default 10 s; 0 pulls the plug
   */
  async stop(ref: string, graceMs?: number): Promise<void> {
    await stopVm(this.daemon, ref, graceMs);
  }

  /** Remove a VM with its disk. @throws ERR_VM_NOT_STOPPED without `force` while it runs */
  async remove(ref: string, options: { force?: boolean } = {}): Promise<void> {
    await removeVm(this.daemon, ref, options.force === true);
  }
}
