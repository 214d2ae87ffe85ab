/** What a pod tells its container of itself: the downward API. */
import type { Pod, ResourceRef } from "../../../schema/pod.ts";
import { hasHostAddress } from "./annotations.ts";
import { PodRefusedError } from "./failure.ts";
import { parseQuantity } from "./quantity.ts";
import { resourceOf, sizesOf } from "./sizes.ts";
import type { ResourceName } from "./sizes.ts";

/** What this node knows of itself that pods may ask for. */
export interface HostFacts {
  /** The address by which it is known to the cluster. */
  address: string;
  /** The API server as this node reaches it, `https://HOST:PORT`; absent: nobody else reaches it there. */
  apiServer?: string;
}

function refused(path: string): PodRefusedError {
  return new PodRefusedError("FieldNotOffered", `fieldRef ${path} is not offered`);
}

/** All labels or annotations, as their file has them. */
const lines = (map: Readonly<Record<string, string>>): string =>
  Object.entries(map)
    .map(([key, value]) => `${key}=${JSON.stringify(value)}`)
    .toSorted()
    .join("\n");

/** A field of the pod as text. @throws PodRefusedError for those that a VM has no value for */
export function fieldOf(pod: Pod, path: string, host: HostFacts): string {
  const { metadata, spec } = pod;
  const key = /^metadata\.(labels|annotations)\['([^']{1,400})'\]$/.exec(path);
  if (key !== null) {
    const map = (key[1] === "labels" ? metadata.labels : metadata.annotations) ?? {};
    return map[key[2] ?? ""] ?? "";
  }
  switch (path) {
    case "metadata.name":
      return metadata.name;
    case "metadata.namespace":
      return metadata.namespace;
    case "metadata.uid":
      return metadata.uid;
    case "metadata.labels":
      return lines(metadata.labels ?? {});
    case "metadata.annotations":
      return lines(metadata.annotations ?? {});
    case "spec.nodeName":
      return spec.nodeName ?? "";
    case "spec.serviceAccountName":
      return spec.serviceAccountName ?? "default";
    case "status.podIP":
    case "status.podIPs":
      if (!hasHostAddress(metadata.annotations)) throw refused(path);
      return host.address;
    case "status.hostIP":
    case "status.hostIPs":
      return host.address;
    default:
      throw refused(path);
  }
}

/** What its VM has, where a pod sets no limit. */
function ofVm(pod: Pod, name: ResourceName): number {
  const [container] = pod.spec.containers;
  const sizes = container === undefined ? undefined : sizesOf(container);
  if (name === "cpu") return sizes?.vcpus ?? 0;
  if (name === "memory") return (sizes?.memMib ?? 0) * 2 ** 20;
  return (sizes?.diskGib ?? 10) * 2 ** 30;
}

/** A resource of the container in whole units of the divisor. @throws PodRefusedError */
export function resourceText(pod: Pod, { resource, divisor }: ResourceRef): string {
  const match = /^(limits|requests)\.(cpu|memory|ephemeral-storage)$/.exec(resource);
  const [container] = pod.spec.containers;
  if (match === null || container === undefined) throw refused(resource);
  const list = match[1] as "limits" | "requests";
  const name = match[2] as ResourceName;
  const amount = resourceOf(container, list, name) ?? (list === "limits" ? ofVm(pod, name) : 0);
  const unit = parseQuantity(divisor ?? "1") ?? 1;
  return String(Math.ceil(amount / (unit === 0 ? 1 : unit)));
}
