/** One agent's sandboxes: made within its policy, seen by it alone, removed when it ends. */
import type { Forwarding } from "../agent/ports.ts";
import type { CloneOptions } from "../client/clone-options.ts";
import type { CreateOptions } from "../client/options.ts";
import type { Vm } from "../client/vm.ts";
import type { Vmsan } from "../client/vmsan.ts";
import type { AgentPolicy } from "../model/agent-policy.ts";
import type { SnapshotView } from "../model/api.ts";
import { VmsanError, messageOf } from "../model/errors.ts";
import type { ProgressSink } from "../model/progress.ts";
import { Outputs } from "./outputs.ts";
import { refused } from "./policy.ts";

/** Label of sandboxes made through MCP. */
const MCP_LABEL = "vmsan-mcp";

/** What a VM will occupy. */
interface Wanted {
  memMib: number;
  diskSizeBytes: number;
}

/** Where a session's sandboxes are, and what else holds for them. */
export interface SessionOptions {
  vmsan: Vmsan;
  policy: AgentPolicy;
  /** Of all its sandboxes. */
  base: Pick<CreateOptions, "project" | "labels" | "driver">;
  /** Take room for VMs within other limits than the policy's; what it gives makes room again. */
  reserve?: (wanted: readonly Wanted[]) => Promise<() => void>;
  /** Make a port of a sandbox reachable; default: a port of this machine's loopback. */
  expose?: (vm: Vm, port: number) => Promise<{ url: string; headers?: Record<string, string> }>;
  /** Told of what went wrong without a caller. */
  log: (message: string) => void;
}

/** How long work may be given up and followed. */
export interface SessionWork {
  signal: AbortSignal;
  onProgress?: ProgressSink;
}

/** One agent at work. */
export class Session {
  readonly policy: AgentPolicy;
  readonly outputs = new Outputs();
  private readonly options: SessionOptions;
  private readonly sandboxes = new Map<string, Vm>();
  private readonly snapshots = new Map<string, string>();
  private readonly forwardings = new Map<string, Forwarding>();
  /** Sandboxes that are being made. */
  private pending = 0;
  private closed = false;

  constructor(options: SessionOptions) {
    this.options = options;
    this.policy = options.policy;
  }

  /** The session's sandboxes, as they are now. */
  async list(): Promise<Vm[]> {
    for (const [id, vm] of this.sandboxes) {
      try {
        await vm.refresh();
      } catch (error) {
        if (!isGone(error)) throw error;
        this.forget(id);
      }
    }
    return [...this.sandboxes.values()];
  }

  /** One of the session's sandboxes, by ID or name. @throws ERR_VM_NOT_FOUND */
  sandbox(ref: string): Vm {
    const vm =
      this.sandboxes.get(ref) ?? [...this.sandboxes.values()].find(({ view }) => view.name === ref);
    if (vm !== undefined) return vm;
    throw new VmsanError({
      code: "ERR_VM_NOT_FOUND",
      message: `There is no sandbox ${JSON.stringify(ref.slice(0, 100))}`,
      why: "This session has made none with this ID or name, or it was removed.",
      fix: "See list_sandboxes, or make one with create_sandbox.",
    });
  }

  /** Make VMs within what is left of the session's and other limits. */
  private async make(
    wanted: readonly Wanted[],
    work: SessionWork,
    body: (work: SessionWork) => Promise<Vm[]>,
  ): Promise<Vm[]> {
    if (this.closed) throw refused("a sandbox", "The session has ended.");
    const count = this.sandboxes.size + this.pending + wanted.length;
    if (count > this.policy.maxSandboxes) {
      throw refused(`${count} sandboxes`, `At most ${this.policy.maxSandboxes} at the same time.`);
    }
    this.pending += wanted.length;
    try {
      const giveBack = await this.options.reserve?.(wanted);
      try {
        const made = await whileMaking(work, body);
        for (const vm of made) this.sandboxes.set(vm.id, vm);
        // The session may have ended meanwhile.
        if (this.closed) await this.removeAll();
        return made;
      } finally {
        giveBack?.();
      }
    } finally {
      this.pending -= wanted.length;
    }
  }

  /** What holds for all sandboxes of the session. */
  private common(): Pick<CreateOptions, "labels" | "timeout" | "onTimeout" | "ephemeral"> {
    const { policy, options } = this;
    return {
      ...options.base,
      labels: { ...options.base.labels, [MCP_LABEL]: "true" },
      timeout: `${policy.maxSandboxMinutes}m`,
      onTimeout: policy.keep ? "stop" : "remove",
      // Gone with this process, also when it is killed.
      ephemeral: !policy.keep,
    };
  }

  /** Make a sandbox; its image and network have been looked at. */
  async create(options: CreateOptions & Wanted, work: SessionWork): Promise<Vm> {
    const { memMib, diskSizeBytes, ...rest } = options;
    const [vm] = await this.make([{ memMib, diskSizeBytes }], work, async (own) => [
      await this.options.vmsan.create({ ...rest, ...this.common() }, own),
    ]);
    if (vm === undefined) throw new TypeError("a creation without a VM");
    return vm;
  }

  /** Make sandboxes that go on where one of the session's is. */
  async fork(vm: Vm, count: number, work: SessionWork): Promise<Vm[]> {
    const { memMib, diskSizeBytes } = vm.view;
    const wanted = Array.from({ length: count }, () => ({ memMib, diskSizeBytes }));
    const options: CloneOptions = { ...this.common(), count };
    return await this.make(
      wanted,
      work,
      async (own) => await this.options.vmsan.fork(vm.id, options, own),
    );
  }

  /** Take a snapshot of a sandbox. */
  async snapshot(vm: Vm, name: string | undefined, work: SessionWork): Promise<SnapshotView> {
    const view = await vm.snapshot({ ...work, ...(name === undefined ? {} : { name }) });
    this.snapshots.set(view.id, vm.id);
    return view;
  }

  /** Take a sandbox back to a snapshot of this session. */
  async rollBack(vm: Vm, snapshot: string, work: SessionWork): Promise<void> {
    const { vmsan } = this.options;
    const known = [...this.snapshots.keys()];
    const view = known.includes(snapshot)
      ? { id: snapshot }
      : (await vmsan.snapshots.list()).find(
          ({ id, name }) => name === snapshot && known.includes(id),
        );
    if (view === undefined) {
      throw new VmsanError({
        code: "ERR_VM_SNAPSHOT_NOT_FOUND",
        message: `There is no snapshot ${JSON.stringify(snapshot.slice(0, 100))}`,
        why: "This session has taken none with this ID or name.",
        fix: "Take one with snapshot_sandbox.",
      });
    }
    await vm.restore(view.id, work);
  }

  /** Make a port of a sandbox reachable. */
  async expose(vm: Vm, port: number): Promise<{ url: string; headers?: Record<string, string> }> {
    if (!this.policy.exposePorts) throw refused("ports of sandboxes", "They stay closed.");
    if (this.options.expose !== undefined) return await this.options.expose(vm, port);
    const key = `${vm.id} ${port}`;
    let forwarding = this.forwardings.get(key);
    if (forwarding === undefined) {
      const { forwardToGuest } = await import("../agent/ports.ts");
      forwarding = await forwardToGuest(
        vm.transport,
        { network: "tcp", host: "127.0.0.1", port: 0 },
        { network: "tcp", host: "127.0.0.1", port },
        { onError: (error) => this.options.log(`port ${port} of ${vm.id}: ${messageOf(error)}`) },
      );
      this.forwardings.set(key, forwarding);
    }
    const { address } = forwarding;
    if (address.network !== "tcp") throw new TypeError("a port without a number");
    return { url: `http://127.0.0.1:${address.port}` };
  }

  /** Remove a sandbox. */
  async destroy(vm: Vm): Promise<void> {
    this.forget(vm.id);
    try {
      await vm.remove();
    } catch (error) {
      if (!isGone(error)) throw error;
    }
  }

  private forget(id: string): void {
    this.sandboxes.delete(id);
    this.outputs.forget(id);
    for (const [key, forwarding] of this.forwardings) {
      if (!key.startsWith(`${id} `)) continue;
      this.forwardings.delete(key);
      forwarding.close().catch((error: unknown) => this.options.log(messageOf(error)));
    }
  }

  /** Remove what the session has made, or let go of it when it is to be kept. */
  async close(): Promise<void> {
    this.closed = true;
    await this.removeAll();
  }

  private async removeAll(): Promise<void> {
    const vms = [...this.sandboxes.values()];
    const snapshots = [...this.snapshots.keys()];
    for (const { id } of vms) this.forget(id);
    this.snapshots.clear();
    if (this.policy.keep) return;
    const removals = [
      ...vms.map(async (vm) => await vm.remove()),
      ...snapshots.map(async (id) => await this.options.vmsan.snapshots.remove(id)),
    ];
    for (const result of await Promise.allSettled(removals)) {
      if (result.status === "fulfilled" || isGone(result.reason)) continue;
      this.options.log(`not removed: ${messageOf(result.reason)}`);
    }
  }
}

/**
 * Work that the call's signal ends, but only until it is done: the connection that a VM is made by keeps
 * it, and the signal of a call may abort when it has been answered.
 */
async function whileMaking<T>(
  { signal, ...rest }: SessionWork,
  body: (work: SessionWork) => Promise<T>,
): Promise<T> {
  const own = new AbortController();
  const stop = (): void => own.abort(signal.reason);
  if (signal.aborted) stop();
  signal.addEventListener("abort", stop, { once: true });
  try {
    return await body({ ...rest, signal: own.signal });
  } finally {
    signal.removeEventListener("abort", stop);
  }
}

/** Whether what was to be removed is gone already. */
function isGone(error: unknown): boolean {
  return error instanceof VmsanError && error.code.endsWith("_NOT_FOUND");
}
