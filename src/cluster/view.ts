/** A pod as a VM. Pure. */
import type { VmView } from "../model/api.ts";
import { NODE_LABEL, POD_ANNOTATION, VM_ID_LABEL } from "../kube/pod-words.ts";
import type { DriverName, VmStatus } from "../model/vm.ts";
import { policyOf } from "../client/options.ts";
import { networkWishes } from "../node/pods/spec/annotations.ts";
import { sizesOf } from "../node/pods/spec/sizes.ts";
import type { Pod } from "../schema/pod.ts";
import { isVmId, parseVmRef } from "../util/names.ts";
import { VmsanError } from "../model/errors.ts";

/** Every VM's, when nothing else is said. */
const DEFAULT_DISK_GIB = 10;

/** Whether a pod is one for hosts of vmsan: nodes that take all pods have others too. */
export function isOurs({ metadata, spec }: Pod): boolean {
  const selector = (spec["nodeSelector"] ?? {}) as Record<string, unknown>;
  return selector[NODE_LABEL] !== undefined || metadata.labels?.[VM_ID_LABEL] !== undefined;
}

/** Whether a pod is there for a command of its own, and not to be a VM. */
export function hasCommand({ metadata }: Pod): boolean {
  return metadata.annotations?.[POD_ANNOTATION.command] === undefined;
}

/** The ID of a pod's VM: what it was made with, or one of its UID, so that one made anew has another. */
export function idOf({ metadata }: Pod): string {
  const said = metadata.labels?.[VM_ID_LABEL] ?? "";
  return isVmId(said) ? said : `vm-${metadata.uid.slice(0, 8).toLowerCase()}`;
}

/** The name of the VM, where the pod's is one. */
function nameOf(pod: Pod): string | undefined {
  const { name } = pod.metadata;
  if (name === idOf(pod)) return undefined;
  try {
    return isVmId(name) ? undefined : parseVmRef(name);
  } catch {
    // ERR_VALIDATION_FLAGS: longer than names are; it has its ID.
    return undefined;
  }
}

interface ContainerState {
  state?: { running?: { startedAt?: string }; waiting?: { reason?: string; message?: string } };
  imageID?: string;
}

/** What is told of the pod's container. */
export function containerState({ status }: Pod): ContainerState {
  return (status?.containerStatuses?.[0] ?? {}) as ContainerState;
}

/** What is true of the VM, as far as the API server knows. */
export function statusOf(pod: Pod): VmStatus {
  const { state } = containerState(pod);
  switch (pod.status?.phase) {
    case "Running":
      return state?.running === undefined ? "creating" : "running";
    case "Succeeded":
      return "stopped";
    case "Failed":
      return "error";
    case undefined:
    case null:
    default:
      return "creating";
  }
}

/** The labels that a VM was made with; what is no JSON object of texts is none. */
function labelsOf(text: string | undefined): Record<string, string> {
  if (text === undefined) return {};
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // SyntaxError: somebody has written the annotation by hand.
    return {};
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) return {};
  return Object.fromEntries(
    Object.entries(value).filter(
      (entry): entry is [string, string] => typeof entry[1] === "string",
    ),
  );
}

/** What a pod's policy says; one that cannot be is told by its node. */
function policyIn(pod: Pod): VmView["policy"] {
  try {
    return policyOf(networkWishes(pod.metadata.annotations));
  } catch (error) {
    if (!(error instanceof VmsanError)) throw error;
    return policyOf({ networkPolicy: "deny-all" });
  }
}

function sizeOf(container: Pod["spec"]["containers"][number]): ReturnType<typeof sizesOf> {
  try {
    return sizesOf(container);
  } catch {
    // PodRefusedError: the node refuses the pod with the reason.
    return { vcpus: 0, memMib: 0, diskGib: undefined };
  }
}

/** Why it has failed. */
function errorOf({ status }: Pod): VmView["error"] {
  const { reason, message } = (status ?? {}) as { reason?: string; message?: string };
  return {
    code: "ERR_CLUSTER_POD",
    message: `The pod has failed${reason === undefined ? "" : `: ${reason}`}`,
    ...(message === undefined ? {} : { why: message.slice(0, 1000) }),
    fix: "See its events: kubectl describe pod.",
  };
}

/**
 * A pod as a VM.
 * @param own what its host says of the VM itself, where that was asked
 */
export function viewOf(pod: Pod, own?: VmView): VmView {
  const { metadata, spec } = pod;
  const [container] = spec.containers;
  if (container === undefined) throw new TypeError("A pod without a container");
  const annotations = metadata.annotations ?? {};
  const status = statusOf(pod);
  const size = sizeOf(container);
  const name = nameOf(pod);
  const runtime = annotations[POD_ANNOTATION.runtime];
  const startedAt = containerState(pod).state?.running?.startedAt ?? own?.startedAt;
  const { [POD_ANNOTATION.endsAt]: timeoutAt, [POD_ANNOTATION.timeout]: timeout } = annotations;
  const digest = /@(sha256:[0-9a-f]{64})$/.exec(containerState(pod).imageID ?? "")?.[1] ?? "";
  const facts = {
    id: idOf(pod),
    ...(name === undefined ? {} : { name }),
    status: own === undefined || status !== "running" ? status : own.status,
    ...(status === "error" ? { error: errorOf(pod) } : {}),
    createdAt: metadata.creationTimestamp ?? new Date(0).toISOString(),
    ...(startedAt === undefined ? {} : { startedAt }),
    ...(timeoutAt === undefined ? {} : { timeoutAt }),
    ...(timeout === undefined ? {} : { timeoutMs: Number(timeout) }),
    ...(timeoutAt === undefined
      ? {}
      : { onTimeout: annotations[POD_ANNOTATION.atEnd] === "remove" ? "remove" : "stop" }),
    ...(status === "stopped" && timeout !== undefined ? { stopReason: "time-limit" } : {}),
    ...(runtime === undefined ? {} : { runtime }),
    labels: labelsOf(annotations[POD_ANNOTATION.labels]),
    project: annotations[POD_ANNOTATION.project] ?? "",
    policy: policyIn(pod),
    ephemeral: timeout === undefined && annotations[POD_ANNOTATION.atEnd] === "remove",
  };
  const told = {
    image: { name: container.image, digest, config: EMPTY_CONFIG },
    // What runs it its host knows, which a list does not ask.
    driver: "node" as DriverName,
    accelerator: "none",
    driverReason: `chosen by the node ${spec.nodeName ?? "that the pod will be on"}`,
    vcpus: size.vcpus,
    memMib: size.memMib,
    diskSizeBytes: (size.diskGib ?? DEFAULT_DISK_GIB) * 2 ** 30,
    kernel: "",
    rootfs: "",
    mounts: [],
    kernelArgs: [],
    sysctls: {},
    defaults: { env: [] },
    secrets: [],
    ports: [],
    networks: [],
    timings: {},
  };
  return { ...told, ...own, ...facts } as VmView;
}

const EMPTY_CONFIG = {
  env: [],
  entrypoint: [],
  cmd: [],
  workingDir: "",
  user: "",
  labels: {},
  exposedPorts: [],
  volumes: [],
};
