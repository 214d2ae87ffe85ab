/** What the kubelet's API sees of one pod. */
import type { Writable } from "node:stream";
import type { Vm } from "../../../client/vm.ts";
import { VmsanError } from "../../../model/errors.ts";
import type { Pod, PodContainer, PodRecord } from "../../../schema/pod.ts";
import type { Attached, PodLogOptions, RunningPod } from "../running.ts";
import type { Container } from "./container.ts";
import { readPodLog } from "./pod-log.ts";
import type { PodState } from "./state.ts";
import type { PodStore } from "./store.ts";

/** What is shown. */
export interface Shown {
  readonly object: Pod;
  readonly spec: PodContainer;
  readonly record: PodRecord;
  readonly state: PodState;
  readonly box: Container;
  readonly over: boolean;
  status(): object;
}

/** One pod, for those who ask. */
export class PodView implements RunningPod {
  /** Variables and the rest are the VM's own, and need not be said again. */
  readonly exec = { env: [] };
  private readonly of: Shown;
  private readonly store: PodStore;

  constructor(of: Shown, store: PodStore) {
    this.of = of;
    this.store = store;
  }

  get uid(): string {
    return this.of.record.uid;
  }
  get namespace(): string {
    return this.of.record.namespace;
  }
  get name(): string {
    return this.of.record.name;
  }
  get container(): string {
    return this.of.spec.name;
  }
  get tty(): boolean {
    return this.of.spec.tty === true;
  }
  get vm(): string {
    return this.of.record.vm ?? "";
  }
  get running(): boolean {
    return this.of.box.run !== undefined;
  }
  get startedAt(): string | undefined {
    return this.of.state.running?.startedAt;
  }
  get stdin(): Writable | undefined {
    return this.of.spec.stdin === true ? this.of.box.run?.stream.stdin : undefined;
  }
  get pod(): object {
    const { object } = this.of;
    return { ...object, status: { ...object.status, ...this.of.status() } };
  }

  async guest(): Promise<Vm> {
    const { vm } = this.of.box;
    if (vm !== undefined && !this.of.over) return await Promise.resolve(vm);
    throw new VmsanError({
      code: "ERR_VM_NOT_FOUND",
      message: `The pod ${this.namespace}/${this.name} has no VM now`,
      why: this.of.over ? "It has ended." : "It is being started.",
      fix: "Look at its state: kubectl describe pod.",
    });
  }

  async *logs(options: PodLogOptions): AsyncGenerator<Uint8Array> {
    const { record, box } = this.of;
    const previous = options.previous === true;
    const which = previous ? record.restarts - 1 : record.restarts;
    const begun = previous ? which >= 0 : record.startedAt !== undefined;
    const dir = this.store.logDir(record.uid, which);
    const open = box.log?.dir === dir ? { open: box.log } : {};
    const { run } = box;
    const goesOn = (): boolean => run !== undefined && box.run === run;
    yield* readPodLog({ dir, begun, ...open }, options, goesOn);
  }

  attach(sink: Attached): () => void {
    const { sinks } = this.of.box;
    sinks.add(sink);
    return () => void sinks.delete(sink);
  }

  resize(rows: number, cols: number): void {
    this.of.box.run?.stream.resize(rows, cols);
  }
}
