/** What is true of a pod on this node, and how Kubernetes writes it. Pure. */
import type { Pod } from "../../../schema/pod.ts";
import { hasHostAddress } from "../spec/annotations.ts";
import type { HostFacts } from "../spec/downward.ts";

/** How a container ended. */
export interface Termination {
  exitCode: number;
  reason: string;
  message?: string;
  startedAt?: string;
  finishedAt: string;
  containerID?: string;
}

/** What is true of a pod on this node. */
export interface PodState {
  phase: "Pending" | "Running" | "Succeeded" | "Failed";
  /** Why it has failed, in a word and a sentence. */
  reason?: string;
  message?: string;
  /** When this node has taken it up, RFC 3339. */
  startTime: string;
  /** Exactly one of the three is there. */
  waiting?: { reason: string; message?: string };
  running?: { startedAt: string };
  terminated?: Termination;
  /** How the container ended the last time. */
  last?: Termination;
  restarts: number;
  /** Its startup probe has succeeded, or there is none. */
  started: boolean;
  ready: boolean;
  imageID: string;
  /** `vmsan://VM.STREAM`. */
  containerID?: string;
}

/** RFC 3339 in seconds, as Kubernetes has it. */
export function seconds(date = new Date()): string {
  return `${date.toISOString().slice(0, 19)}Z`;
}

/** What a condition is, and since when. */
interface Condition {
  type: string;
  status: "True" | "False";
  lastTransitionTime: string;
  reason?: string;
}

/** Keeps since when conditions are as they are. */
export class Conditions {
  private readonly known = new Map<string, Condition>();

  /** The conditions of a pod in this state. */
  of(state: PodState): Condition[] {
    const over = state.phase === "Succeeded" || state.phase === "Failed";
    const why = over
      ? { reason: state.phase === "Succeeded" ? "PodCompleted" : "PodFailed" }
      : { reason: "ContainersNotReady" };
    return [
      this.set("Initialized", true, {}),
      this.set("ContainersReady", state.ready, why),
      this.set("Ready", state.ready, why),
    ];
  }

  private set(type: string, holds: boolean, why: { reason?: string }): Condition {
    const status = holds ? "True" : "False";
    const before = this.known.get(type);
    const same = before?.status === status;
    const condition: Condition = {
      type,
      status,
      lastTransitionTime: same ? before.lastTransitionTime : seconds(),
      ...(holds ? {} : why),
    };
    this.known.set(type, condition);
    return condition;
  }
}

function containerState(state: PodState): object {
  if (state.running !== undefined) return { running: state.running };
  if (state.terminated !== undefined) return { terminated: state.terminated };
  return { waiting: state.waiting ?? { reason: "ContainerCreating" } };
}

/** A pod's status as the API server is told it. */
export function statusOf(
  pod: Pod,
  state: PodState,
  conditions: Conditions,
  { address }: HostFacts,
): object {
  const [container] = pod.spec.containers;
  const { generation } = pod.metadata;
  // The pod's description that this is a status of.
  const observed = generation ? { observedGeneration: generation } : {};
  return {
    ...observed,
    phase: state.phase,
    ...(state.reason === undefined ? {} : { reason: state.reason }),
    ...(state.message === undefined ? {} : { message: state.message }),
    startTime: state.startTime,
    hostIP: address,
    hostIPs: [{ ip: address }],
    ...(state.running !== undefined && hasHostAddress(pod.metadata.annotations)
      ? { podIP: address, podIPs: [{ ip: address }] }
      : {}),
    conditions: conditions.of(state).map((condition) => ({ ...condition, ...observed })),
    containerStatuses: [
      {
        name: container?.name ?? "",
        image: container?.image ?? "",
        imageID: state.imageID,
        ...(state.containerID === undefined ? {} : { containerID: state.containerID }),
        restartCount: state.restarts,
        started: state.started,
        ready: state.ready,
        state: containerState(state),
        lastState: state.last === undefined ? {} : { terminated: state.last },
      },
    ],
  };
}

/** What is read of a status here. */
interface ToldStatus {
  observedGeneration?: number;
  phase?: string;
  reason?: string;
  conditions?: { type?: string; status?: string }[] | null;
  containerStatuses?: {
    ready?: boolean;
    started?: boolean;
    restartCount?: number;
    state?: Record<string, { reason?: string; startedAt?: string } | undefined>;
  }[];
}

const readiness = ({ conditions }: ToldStatus): string | undefined =>
  conditions?.find(({ type }) => type === "Ready")?.status;

/**
 * Whether somebody has changed what this node has told: of a node that was silent, the control plane says that its pods are
 * not ready, and leaves it to the node to say that they are.
 */
export function isOverruled(status: unknown): boolean {
  const told = (status ?? {}) as ToldStatus;
  return told.containerStatuses?.[0]?.ready === true && readiness(told) !== "True";
}

/** What counts of a status: two that are the same here need not be told one after the other. */
export function essenceOf(status: unknown): string {
  const told = (status ?? {}) as ToldStatus;
  const { observedGeneration, phase, reason, containerStatuses } = told;
  const [first] = containerStatuses ?? [];
  const [kind, details] = Object.entries(first?.state ?? {})[0] ?? [];
  return JSON.stringify([
    observedGeneration,
    phase,
    reason,
    readiness(told),
    first?.ready,
    first?.started,
    first?.restartCount,
    kind,
    details?.reason,
    kind === "running" ? details?.startedAt : undefined,
  ]);
}
