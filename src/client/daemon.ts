/** The daemon of a directory: started when needed, called, and called again when that is safe. */
import type { Duplex, Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import type { ProgressSink } from "../model/progress.ts";
import { identityOf, isAlive } from "../util/process-identity.ts";
import { packageVersion } from "../util/package.ts";
import type { Layout } from "../util/paths.ts";
import { VmsanError, messageOf } from "../model/errors.ts";
import { asStep } from "./tracing/timeline.ts";
import { ATTEMPTS, daemonLost, isKilledAtStart } from "./lost.ts";
import {
  Transport,
  hasEnded,
  isConnectionLost,
  isNotListening,
  isOtherVersion,
} from "./transport.ts";
import type { Backend, CallOptions, RemoteServer, StreamedCallOptions } from "./transport.ts";

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

/** What becomes of a call whose daemon ends before it has answered. */
export interface RepeatOptions {
  /** Made again with the next daemon. Default: every method but POST. */
  repeat?: boolean;
  /**
   * Code of the error that, of a call made again, says that the first one was carried out; its
   * result is undefined then.
   */
  doneIf?: string;
}

/** When a call may start a daemon: whenever none runs, or only in the place of one that was killed. */
export type StartRule = "always" | "after-kill";

const PAUSE_MS = 50;

/** The daemon of a directory, started when needed, and calls to it. */
export class Daemon {
  readonly layout: Layout;
  private readonly transport: Backend;
  private readonly mayStart: boolean;
  private ready: Promise<void> | undefined;

  /** @param remote what takes calls in place of this machine's daemon: a gateway, or a cluster */
  constructor(layout: Layout, mayStart: boolean, remote?: RemoteServer | Backend) {
    this.layout = layout;
    this.mayStart = mayStart && remote === undefined;
    this.transport =
      remote !== undefined && "call" in remote ? remote : new Transport(remote ?? layout.socket);
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
    await asStep("start of the daemon", async () => await startDaemon(this.layout));
  }

  /**
   * Call, and once more when the daemon turns out not to run (any more) or to be another version:
   * nothing was done then, so it is safe to repeat whatever the call is.
   */
  private async withDaemon<T>(
    body: (transport: Backend) => Promise<T>,
    start: StartRule = "always",
  ): Promise<T> {
    const before = this.ready;
    try {
      return await body(this.transport);
    } catch (error) {
      if (this.transport.remote) throw error;
      if (!isNotListening(error) && !isOtherVersion(error)) throw error;
      if (start === "after-kill" && hasEnded(error)) throw error;
      // Of several calls that find this, one starts the daemon; the others wait for it.
      if (this.ready === before) this.ready = undefined;
      await this.ensure();
      return await body(this.transport);
    }
  }

  /**
   * Call, and with the next daemon again when one ends before it has answered and the call may be
   * repeated. @throws ERR_DAEMON_LOST otherwise, with the broken connection as its cause
   */
  private async outlive<T>(
    method: string,
    path: string,
    options: RepeatOptions & { signal?: AbortSignal },
    body: (transport: Backend) => Promise<T>,
  ): Promise<T> {
    const { repeat = method !== "POST", doneIf, signal } = options;
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.withDaemon(body);
      } catch (error) {
        if (attempt > 1 && error instanceof VmsanError && error.code === doneIf) {
          return undefined as T;
        }
        if (!isConnectionLost(error) && !isKilledAtStart(error)) throw error;
        signal?.throwIfAborted();
        const nobody = !this.mayStart && isNotListening(error);
        if (!repeat || nobody || attempt === ATTEMPTS) throw this.lost(method, path, error);
      }
      await sleep(PAUSE_MS * attempt);
    }
  }

  /** The error of a call of which nothing more is known. */
  private lost(method: string, path: string, cause: unknown): VmsanError {
    const call = `${method} ${path}`;
    if (!this.mayStart && isNotListening(cause)) {
      const { remote } = this.transport;
      return new VmsanError(
        {
          code: "ERR_DAEMON_NOT_RUNNING",
          message: `Nobody takes ${call}`,
          why: remote
            ? `The gateway does not answer: ${messageOf(cause)}`
            : `No daemon serves ${this.layout.root}, and this client was told to start none.`,
          fix: remote
            ? "Check its address, and that it runs there: vmsan serve."
            : "Start it with any command (vmsan list), or allow it: new Vmsan({ start: true }).",
        },
        cause,
      );
    }
    return daemonLost(
      `it had answered ${call}`,
      "Whether that was carried out is not known.",
      `See what is there (vmsan list, vmsan image ls), then run it again; ${this.layout.daemonLog} says what the daemon did.`,
      cause,
    );
  }

  /** A call with one JSON reply. */
  async call<T>(
    method: string,
    path: string,
    options: CallOptions & RepeatOptions = {},
  ): Promise<T> {
    return await this.outlive(method, path, options, (transport) =>
      transport.call<T>(method, path, options),
    );
  }

  /** A call whose reply is progress and a result. */
  async streamed<T>(
    method: string,
    path: string,
    options: StreamedCallOptions & RepeatOptions,
  ): Promise<T> {
    return await this.outlive(method, path, options, async (transport) => {
      // What was uploaded in vain would be lost.
      if (options.upload !== undefined && !transport.remote) await this.ensure();
      return await transport.streamed<T>(method, path, options);
    });
  }

  /** A call whose reply is bytes; see resumed.ts for those that outlive the daemon. */
  async download(
    method: string,
    path: string,
    { start, ...options }: CallOptions & { start?: StartRule } = {},
  ): Promise<Readable> {
    return await this.withDaemon((transport) => transport.download(method, path, options), start);
  }

  /** A raw connection to an agent's stream. */
  async upgrade(path: string, signal?: AbortSignal, patienceMs?: number): Promise<Duplex> {
    return await this.withDaemon((transport) => transport.upgrade(path, signal, patienceMs));
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
