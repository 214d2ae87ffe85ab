/** VMs that are pods: words that a node of a cluster and whoever makes pods for it both know. */

/** Names of annotations and labels of ours begin so. */
export const POD_PREFIX = "vmsan.io/";

/** Annotations by which a pod says what no field of Kubernetes does; see docs/cluster.md. */
export const POD_ANNOTATION = {
  networkPolicy: `${POD_PREFIX}network-policy`,
  allowedDomains: `${POD_PREFIX}allowed-domains`,
  allowedCidrs: `${POD_PREFIX}allowed-cidrs`,
  deniedCidrs: `${POD_PREFIX}denied-cidrs`,
  allowedPorts: `${POD_PREFIX}allowed-ports`,
  allowIcmp: `${POD_PREFIX}allow-icmp`,
  allowUdp: `${POD_PREFIX}allow-udp`,
  bandwidth: `${POD_PREFIX}bandwidth`,
  /** A snapshot of the host's, without the namespace that is before its name there. */
  snapshot: `${POD_PREFIX}snapshot`,
  /** `memory`: its VM falls asleep when the pod is removed, and the next pod of its name goes on in it. */
  suspend: `${POD_PREFIX}suspend`,
  /** `true`: may start from a template of its image. */
  warm: `${POD_PREFIX}warm-start`,
  /** Volumes of the host, as words of `-v`, with commas. */
  volumes: `${POD_PREFIX}volumes`,
  /** `host`: its address is its host's. */
  podIp: `${POD_PREFIX}pod-ip`,
  /** `none`: nothing is started in the VM, which runs until the pod ends. */
  command: `${POD_PREFIX}command`,
  /** RFC 3339: when it ends by itself. May be changed while it runs. */
  endsAt: `${POD_PREFIX}ends-at`,
  /** The limit that this was made of, in milliseconds. */
  timeout: `${POD_PREFIX}timeout-ms`,
  /** The user of commands, where that is a name. */
  user: `${POD_PREFIX}user`,
  /** What happens then: `stop` (default: the pod has succeeded) or `remove` (its object goes too). */
  atEnd: `${POD_PREFIX}at-end`,
  /** Name of the runtime that was asked for, which is the image then. */
  runtime: `${POD_PREFIX}runtime`,
  /** The VM's labels, JSON, and its project: kept for whoever has made the pod. */
  labels: `${POD_PREFIX}labels`,
  project: `${POD_PREFIX}project`,
} as const;

/** Label of nodes that are hosts of vmsan, and their taint. */
export const NODE_LABEL = `${POD_PREFIX}node`;

/** Label of a pod with the ID of its VM, where somebody has asked for a VM and not for a pod. */
export const VM_ID_LABEL = `${POD_PREFIX}vm`;

/** Label of the stream that is a pod's main process. */
export const POD_MAIN_LABEL = `${POD_PREFIX}main`;

/** The main process of a pod in which nothing is started: the agent's own program, which every guest has, waits. */
export const WAIT_COMMAND: readonly string[] = ["/proc/self/exe", "pause"];

/** Header of each request to the API of a pod's VM: the UID of the pod that is meant. */
export const POD_UID_HEADER = "vmsan-pod-uid";

/**
 * The "command" by which a client of a pod is given the daemon's API for its VM instead of a command: HTTP/1.1 over
 * the session's input and output. No program can be called so: the paths that it could mean do not exist.
 */
export const VM_API_COMMAND = "vmsan://vm";
