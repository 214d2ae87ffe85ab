/**
 * node/: this host as a node of a Kubernetes cluster (`vmsan node`), a process on the SDK's client: pods
 * become VMs. pods/ keeps pods and VMs the same, kubelet/ is what the API server and `kubectl` ask the node for,
 * join/ makes a host a node.
 *
 * running.ts: what the kubelet's API needs of pods that run here; nothing of how they are kept.
 */
import type { Writable } from "node:stream";
import type { OutputNumber } from "../../agent/frames.ts";
import type { Vm } from "../../client/vm.ts";

/** What of a container's log is wanted. */
export interface PodLogOptions {
  /** Go on until the container ends. */
  follow?: boolean;
  sinceTime?: Date;
  sinceSeconds?: number;
  /** The last so many lines. */
  tailLines?: number;
  /** Ends behind so many bytes. */
  limitBytes?: number;
  /** Of the run before this one. */
  previous?: boolean;
  /** The moment before each line, RFC 3339 with nanoseconds. */
  timestamps?: boolean;
  signal?: AbortSignal;
}

/** Somebody who is attached to a container. */
export interface Attached {
  /** Resolves when it takes more: a slow one slows the container. */
  output(stream: OutputNumber, bytes: Buffer): Promise<void>;
  /** The container has ended, and all has been handed over. */
  end(): void;
}

/** One container of a pod, which has a VM. */
export interface RunningPod {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
  readonly container: string;
  /** Its pod as the API server has it, with the status that this node has last told. */
  readonly pod: object;
  /** The VM's ID. */
  readonly vm: string;
  /** Whether its main process runs now. */
  readonly running: boolean;
  /** When the main process was started, RFC 3339. */
  readonly startedAt: string | undefined;
  readonly tty: boolean;
  /** What commands are run with, as the main process is. */
  readonly exec: { env: string[]; user?: string; workdir?: string };
  /** Its VM. @throws ERR_VM_NOT_FOUND */
  guest(): Promise<Vm>;
  /** What it has printed. @throws ERR_NODE_LOG when there is no log of that run */
  logs(options: PodLogOptions): AsyncIterable<Uint8Array>;
  /** Hand on what the main process prints from now on. @returns leaves it */
  attach(sink: Attached): () => void;
  /** The main process's input; undefined when it has none or does not run. */
  readonly stdin: Writable | undefined;
  /** Give its terminal a size. */
  resize(rows: number, cols: number): void;
}

/** The pods of this node that have VMs. */
export interface RunningPods {
  /** Resolves once all that ran here before has been taken up. */
  readonly adopted: Promise<void>;
  /** @param container absent or empty: the pod's only one */
  find(namespace: string, pod: string, container?: string): RunningPod | undefined;
  list(): RunningPod[];
}
