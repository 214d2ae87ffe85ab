/** The SDK's entrance: all VMs and images of one VMSAN_DIR. */
import type { Duplex, Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import type { CreateRequest, VmView } from "../model/api.ts";
import type { ProgressSink } from "../model/progress.ts";
import { identityOf, isAlive } from "../util/process-identity.ts";
import { packageVersion } from "../util/package.ts";
import { layoutOf, vmsanDir } from "../util/paths.ts";
import type { Layout } from "../util/paths.ts";
import { Images } from "./images.ts";
import { Kernels } from "./kernels.ts";
import { createRequest } from "./options.ts";
import type { CreateOptions } from "./options.ts";
import { Transport, isConnectionLost, isNotListening, isOtherVersion } from "./transport.ts";
import type { CallOptions, StreamedCallOptions } from "./transport.ts";
import { Hold } from "./hold.ts";
import { vmPath } from "./paths.ts";
import type { Vm } from "./vm.ts";

const STOP_LIMIT_MS = 15_000;
const STOP_POLL_MS = 20;

/** Where and how to reach the daemon. */
export interface VmsanOptions {
  /** VMSAN_DIR; default from the environment, else ~/.vmsan. */
  dir?: string;
  /** Start the daemon when it does not run; default true. */
  start?: boolean;
}

/** What long calls may be given. */
export interface WorkOptions {
  onProgress?: ProgressSink;
  signal?: AbortSignal;
}

/** What the daemon says of itself. */
export interface DaemonInfo {
  version: string;
  pid: number;
  root: string;
  protocol: number;
}

/** The daemon of a directory, started when needed, and calls to it. */
export class Daemon {
  readonly layout: Layout;
  private readonly transport: Transport;
  private readonly mayStart: boolean;
  private ready: Promise<void> | undefined;

  constructor(layout: Layout, mayStart: boolean) {
    this.layout = layout;
    this.mayStart = mayStart;
    this.transport = new Transport(layout.socket);
  }

  /** Make sure that a daemon of this version serves. */
  private async ensure(): Promise<void> {
    this.ready ??= this.connect().catch((error: unknown) => {
      this.ready = undefined;
      throw error;
    });
    await this.ready;
  }

  private async connect(): Promise<void> {
    try {
      const { version } = await this.transport.call<DaemonInfo>("GET", "/v1/version");
      if (version === packageVersion()) return;
      // An upgrade: the old daemon lets go of its VMs, the new one finds them.
      await this.transport.call("POST", "/v1/shutdown");
    } catch (error) {
      if (!isConnectionLost(error)) throw error;
    }
    if (!this.mayStart) return;
    const { startDaemon } = await import("./start.ts");
    await startDaemon(this.layout);
  }

  /**
   * Call, and once more when the daemon turns out not to run (any more) or to be another version:
   * nothing was done then, so it is safe to repeat whatever the call is.
   */
  private async withDaemon<T>(body: (transport: Transport) => Promise<T>): Promise<T> {
    const before = this.ready;
    try {
      return await body(this.transport);
    } catch (error) {
      if (!isNotListening(error) && !isOtherVersion(error)) throw error;
      // Of several calls that find this, one starts the daemon; the others wait for it.
      if (this.ready === before) this.ready = undefined;
      await this.ensure();
      return await body(this.transport);
    }
  }

  /** A call with one JSON reply. */
  async call<T>(method: string, path: string, options?: CallOptions): Promise<T> {
    return await this.withDaemon((transport) => transport.call<T>(method, path, options));
  }

  /** A call whose reply is progress and a result. */
  async streamed<T>(method: string, path: string, options: StreamedCallOptions): Promise<T> {
    // What was uploaded in vain would be lost.
    if (options.upload !== undefined) await this.ensure();
    return await this.withDaemon((transport) => transport.streamed<T>(method, path, options));
  }

  /** A call whose reply is bytes. */
  async download(method: string, path: string, options?: CallOptions): Promise<Readable> {
    return await this.withDaemon((transport) => transport.download(method, path, options));
  }

  /** A raw connection to an agent's stream. */
  async upgrade(path: string, signal?: AbortSignal): Promise<Duplex> {
    return await this.withDaemon((transport) => transport.upgrade(path, signal));
  }

  /** What runs; undefined when no daemon does. Starts none. */
  async info(): Promise<DaemonInfo | undefined> {
    try {
      return await this.transport.call<DaemonInfo>("GET", "/v1/version");
    } catch (error) {
      if (isConnectionLost(error)) return undefined;
      throw error;
    }
  }

  /** End the daemon and wait until it is gone; its VMs go on. False when none ran. */
  async stop(): Promise<boolean> {
    const info = await this.info();
    if (info === undefined) return false;
    const identity = identityOf(info.pid);
    try {
      await this.transport.call("POST", "/v1/shutdown");
    } catch (error) {
      if (!isConnectionLost(error)) throw error;
    }
    if (identity === undefined) return true;
    const deadline = Date.now() + STOP_LIMIT_MS;
    do await sleep(STOP_POLL_MS);
    while (isAlive(identity) && Date.now() < deadline);
    return true;
  }
}

/** microVMs from OCI images. One object for each VMSAN_DIR; it holds no connection open. */
export class Vmsan {
  readonly daemon: Daemon;
  readonly images: Images;
  readonly kernels: Kernels;

  constructor(options: VmsanOptions = {}) {
    const dir = options.dir ?? vmsanDir();
    this.daemon = new Daemon(layoutOf(dir), options.start ?? true);
    this.images = new Images(this.daemon);
    this.kernels = new Kernels(this.daemon);
  }

  /** The object for a VM; what works in a guest is loaded with the first one. */
  private async vm(view: VmView, hold?: Hold): Promise<Vm> {
    const { Vm } = await import("./vm.ts");
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
    const request: CreateRequest = createRequest(options);
    if (options.image !== undefined) {
      Object.assign(request, await this.images.source(options.image, request.pull, work));
    }
    const hold = request.ephemeral ? new Hold(this.daemon) : undefined;
    const view = await this.daemon.streamed<VmView>("POST", "/v1/vms", {
      body: request,
      ...work,
      onVm: (id) => {
        hold?.on(id);
        work.onVm?.(id);
      },
      ...hold?.options,
    });
    return await this.vm(view, hold);
  }

  /** All VMs as they are now. */
  async list(): Promise<VmView[]> {
    return (await this.daemon.call<{ vms: VmView[] }>("GET", "/v1/vms")).vms;
  }

  /** A VM by its ID or name. @throws ERR_VM_NOT_FOUND */
  async get(ref: string): Promise<Vm> {
    return await this.vm(await this.daemon.call<VmView>("GET", vmPath(ref)));
  }

  /** Start a stopped VM. @throws ERR_VM_NOT_STOPPED */
  async start(ref: string, work: WorkOptions = {}): Promise<Vm> {
    const view = await this.daemon.streamed<VmView>("POST", vmPath(ref, "start"), work);
    return await this.vm(view);
  }

  /**
   * Stop a VM: gracefully first, by force after the grace time.
   * @param graceMs milliseconds, default 10 s; 0 pulls the plug
   */
  async stop(ref: string, graceMs?: number): Promise<void> {
    await this.daemon.call("POST", vmPath(ref, "stop"), {
      body: graceMs === undefined ? {} : { graceMs },
    });
  }

  /** Remove a VM with its disk. @throws ERR_VM_NOT_STOPPED without `force` while it runs */
  async remove(ref: string, options: { force?: boolean } = {}): Promise<void> {
    const query = options.force === true ? "?force=true" : "";
    await this.daemon.call("DELETE", `${vmPath(ref)}${query}`);
  }
}
