/** VMs that are pods of a cluster: what takes their calls is loaded with the first one. */
import type { Duplex, Readable } from "node:stream";
import type { ClusterOptions } from "./options.ts";
import type { Backend, CallOptions, StreamedCallOptions } from "../client/transport.ts";

/** Calls to a cluster instead of a daemon. */
export class ClusterCalls implements Backend {
  readonly remote = true;
  private readonly options: ClusterOptions;
  private opened: Promise<Backend> | undefined;

  constructor(options: ClusterOptions) {
    this.options = options;
  }

  private async backend(): Promise<Backend> {
    this.opened ??= import("./backend.ts")
      .then(async ({ openCluster }) => await openCluster(this.options))
      .catch((error: unknown) => {
        this.opened = undefined;
        throw error;
      });
    return await this.opened;
  }

  async call<T>(method: string, path: string, options?: CallOptions): Promise<T> {
    return await (await this.backend()).call<T>(method, path, options);
  }

  async download(method: string, path: string, options?: CallOptions): Promise<Readable> {
    return await (await this.backend()).download(method, path, options);
  }

  async streamed<T>(method: string, path: string, options: StreamedCallOptions): Promise<T> {
    return await (await this.backend()).streamed<T>(method, path, options);
  }

  async upgrade(path: string, signal?: AbortSignal, patienceMs?: number): Promise<Duplex> {
    return await (await this.backend()).upgrade(path, signal, patienceMs);
  }
}
