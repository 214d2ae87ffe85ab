/** What a cluster cannot do, in words. */
import { VmsanError } from "../model/errors.ts";

/** Something that VMs of one host have and pods have not. @param what as the user knows it */
export function unsupported(
  what: string,
  why: string,
  fix = "Use it on a host of vmsan, without a cluster; docs/cluster.md says what pods can.",
): VmsanError {
  return new VmsanError({
    code: "ERR_CLUSTER_UNSUPPORTED",
    message: `${what}: not offered on a cluster`,
    why,
    fix,
  });
}

/** Why a call of the daemon's API is not there, by what its path begins with. */
const REASONS: [path: RegExp, what: string, why: string, fix?: string][] = [
  [
    /^\/v1\/vms\/[^/]+\/start$/,
    "start",
    "A pod that has ended does not start again; its disk is gone with it.",
  ],
  [
    /^\/v1\/vms\/[^/]+\/(pause|resume|suspend)$/,
    "$1",
    "Kubernetes has no pods that stand still.",
    "The annotation vmsan.io/suspend: memory has a pod's memory outlive its removal, on its host; docs/cluster.md says how.",
  ],
  [/^\/v1\/vms\/[^/]+\/update$/, "update", "A pod keeps the size that it was scheduled with."],
  [
    /^\/v1\/vms\/[^/]+\/fork$/,
    "fork",
    "A copy of a VM has to be on its host, and the scheduler decides where pods are.",
    "Have a snapshot of it on that host, by the name NAMESPACE.NAME, and make pods with the annotation vmsan.io/snapshot: NAME there (a nodeSelector of kubernetes.io/hostname); docs/cluster.md says how.",
  ],
  [
    /^\/v1\/vms\/[^/]+\/restore$/,
    "restore",
    "Snapshots are files of one host; the annotation vmsan.io/snapshot starts a pod from one.",
  ],
  [
    /^\/v1\/vms\/[^/]+\/(commit|diff)$/,
    "$1",
    "A VM's disk is on its host, and so would be an image of it.",
  ],
  [
    /^\/v1\/snapshots/,
    "snapshots",
    "Snapshots are files of one host; the annotation vmsan.io/snapshot starts a pod from one.",
  ],
  [
    /^\/v1\/volumes/,
    "volumes",
    "Volumes are disks of one host; the annotation vmsan.io/volumes gives a pod those of its host.",
  ],
  [/^\/v1\/networks/, "private networks", "They are one host's."],
  [
    /^\/v1\/(images|builds)/,
    "images",
    "Each host has a store of its own, and pulls what its pods name.",
  ],
  [/^\/v1\/kernels/, "kernels", "Each host has its own."],
  [/^\/v1\/events/, "events", "The API server has them: kubectl get events --watch."],
  [/^\/v1\/metrics/, "metrics", "Each node serves its own: kubectl top, /metrics/resource."],
  [/^\/v1\/doctor/, "doctor", "It looks at one host."],
];

/** A call that has no meaning for pods. */
export function noSuchCall(method: string, path: string): VmsanError {
  for (const [pattern, what, why, fix] of REASONS) {
    const match = pattern.exec(path);
    if (match !== null) return unsupported(what.replace("$1", match[1] ?? ""), why, fix);
  }
  return unsupported(`${method} ${path.slice(0, 200)}`, "No part of a pod is meant by it.");
}
