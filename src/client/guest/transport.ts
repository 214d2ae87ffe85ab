/** The way to a VM's agent. */
import type { Duplex } from "node:stream";
import type { GuestTransport, RequestOptions } from "../../agent/transport.ts";
import type { Daemon } from "../daemon.ts";
import { vmPath } from "../paths.ts";

/** Reaches a VM's agent through the daemon, also after the daemon was started anew. */
export class VmTransport implements GuestTransport {
  private readonly daemon: Daemon;
  private readonly id: string;

  constructor(daemon: Daemon, id: string) {
    this.daemon = daemon;
    this.id = id;
  }

  async open(path: string, signal: AbortSignal, patienceMs?: number): Promise<Duplex> {
    return await this.daemon.upgrade(vmPath(this.id) + path, signal, patienceMs);
  }

  async request<T>(method: string, path: string, options: RequestOptions = {}): Promise<T> {
    const repeat = options.idempotent ?? method !== "POST";
    return await this.daemon.call<T>(method, vmPath(this.id, `agent${path}`), {
      ...options,
      repeat,
    });
  }
}
