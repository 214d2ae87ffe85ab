/** The daemon of a directory: started when needed, called, and called again when that is safe. */
import type { Duplex, Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import type { ProgressSink } from "../model/progress.ts";
import { identityOf, isAlive } from "../util/process-identity.ts";
import { packageVersion } from "../util/package.ts";
import type { Layout } from "../util/paths.ts";
import { Transport, isConnectionLost, isNotListening, isOtherVersion } from "./transport.ts";
import type { CallOptions, RemoteServer, StreamedCallOptions } from "./transport.ts";

const STOP_LIMIT_MS = 15_000;
const STOP_POLL_MS = 20;

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

  /** @param remote a gateway in place of this machine's daemon */
  constructor(layout: Layout, mayStart: boolean, remote?: RemoteServer) {
    this.layout = layout;
    this.mayStart = mayStart && remote === undefined;
    this.transport = new Transport(remote ?? layout.socket);
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
      if (this.transport.remote) throw error;
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
    if (options.upload !== undefined && !this.transport.remote) await this.ensure();
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
