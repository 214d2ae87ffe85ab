/** What of a pod the memory of an earlier one has to fit. Pure. */
import { createHash } from "node:crypto";
import { POD_ANNOTATION, POD_PREFIX } from "../../../kube/pod-words.ts";
import type { Pod } from "../../../schema/pod.ts";

/** Of a specification what says where a pod is placed, and not what it is. */
const PLACEMENT = new Set([
  "nodeName",
  "nodeSelector",
  "affinity",
  "tolerations",
  "topologySpreadConstraints",
  "terminationGracePeriodSeconds",
  "activeDeadlineSeconds",
]);

/** Annotations that may be changed of a pod that runs. */
const LIVE = new Set<string>([POD_ANNOTATION.endsAt, POD_ANNOTATION.timeout, POD_ANNOTATION.atEnd]);

/** What a pod's owner is known by. */
interface Owner {
  apiVersion?: string;
  kind?: string;
  name?: string;
  uid?: string;
  controller?: boolean;
}

/** The object that has made a pod, and looks after it; undefined: somebody has made it by hand. */
export function controllerOf(metadata: Pod["metadata"]): Owner | undefined {
  const owners = (metadata["ownerReferences"] ?? []) as Owner[];
  return owners.find(({ controller }) => controller === true);
}

/**
 * 32 hex digits that two pods have in common when one may go on with the other's memory: what runs in them, with what,
 * and whose they are.
 * @param account UID of the pod's ServiceAccount
 */
export function memoryKey(pod: Pod, account: string): string {
  // The volume with a ServiceAccount's token has a name by chance.
  const names = new Map(pod.spec.volumes?.map(({ name }, index) => [name, String(index)]));
  const known = (name: string): string => names.get(name) ?? name;
  const spec = Object.entries(pod.spec).filter(([key]) => !PLACEMENT.has(key));
  const annotations = Object.entries(pod.metadata.annotations ?? {}).filter(
    ([key]) => key.startsWith(POD_PREFIX) && !LIVE.has(key),
  );
  const what = {
    ...Object.fromEntries(spec),
    volumes: pod.spec.volumes?.map((volume) => ({ ...volume, name: known(volume.name) })),
    containers: pod.spec.containers.map((container) => ({
      ...container,
      volumeMounts: container.volumeMounts?.map((mount) => ({ ...mount, name: known(mount.name) })),
    })),
  };
  const text = JSON.stringify([
    controllerOf(pod.metadata)?.uid ?? "",
    account,
    annotations.toSorted(([a], [b]) => a.localeCompare(b)),
    what,
  ]);
  return createHash("sha256").update(text).digest("hex").slice(0, 32);
}
