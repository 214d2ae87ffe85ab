/** What pods may ask of a VM that no field of Kubernetes says: annotations `vmsan.io/…`. */
import type { CreateOptions } from "../../../client/options.ts";

/** Names of all of them begin so; unknown ones are refused. */
export const ANNOTATION_PREFIX = "vmsan.io/";

const list = (text: string): string[] =>
  text
    .split(",")
    .map((word) => word.trim())
    .filter((word) => word !== "");

/** Wishes of the network, by annotation. */
const NETWORK: Record<string, (text: string) => Partial<CreateOptions>> = {
  "network-policy": (text) => ({ networkPolicy: text }),
  "allowed-domains": (text) => ({ allowedDomains: list(text) }),
  "allowed-cidrs": (text) => ({ allowedCidrs: list(text) }),
  "denied-cidrs": (text) => ({ deniedCidrs: list(text) }),
  "allowed-ports": (text) => ({ allowedPorts: list(text) }),
  bandwidth: (text) => ({ bandwidth: text }),
};

/** Of a snapshot that the VM goes on from: `NAME`, which is `NAMESPACE.NAME` on the host. */
const SNAPSHOT = "snapshot";
/** `true`: may start from a template of its image. */
const WARM = "warm-start";
/** Volumes of the host: `NAME:/path[:ro]`, separated by commas. */
const VOLUMES = "volumes";

/**
 * `host`: the pod's address is its host's, where its hostPorts are. By itself a pod has none, since other pods could not
 * reach it there; but some controllers call no pod ready that has none (agent-sandbox).
 */
const POD_IP = "pod-ip";

/** Names of all annotations that are understood, in full. */
export const ANNOTATIONS: ReadonlySet<string> = new Set(
  [...Object.keys(NETWORK), SNAPSHOT, WARM, VOLUMES, POD_IP].map(
    (name) => ANNOTATION_PREFIX + name,
  ),
);

/** What a pod's annotations ask for. */
export interface Wishes {
  network: Partial<CreateOptions>;
  /** Name on the host. */
  snapshot: string | undefined;
  warm: boolean;
  /** Volumes by name on the host, as words of `-v`. */
  volumes: string[];
}

/** Read a pod's annotations; what is not right in them VM's creation says. */
export function wishesOf(annotations: Readonly<Record<string, string>>, namespace: string): Wishes {
  const said = (name: string): string | undefined => annotations[ANNOTATION_PREFIX + name];
  const network: Partial<CreateOptions> = {};
  for (const [name, read] of Object.entries(NETWORK)) {
    const text = said(name);
    if (text !== undefined) Object.assign(network, read(text));
  }
  const snapshot = said(SNAPSHOT);
  return {
    network,
    // A namespace has no dot in its name: what is another's cannot be named.
    snapshot: snapshot === undefined ? undefined : `${namespace}.${snapshot}`,
    warm: said(WARM) === "true",
    volumes: list(said(VOLUMES) ?? "").map((word) => `${namespace}.${word}`),
  };
}

/** Whether a pod is to have its host's address; undefined: its annotation says something else. */
export function hasHostAddress(
  annotations: Readonly<Record<string, string>> | null | undefined,
): boolean | undefined {
  const said = annotations?.[ANNOTATION_PREFIX + POD_IP];
  if (said === undefined) return false;
  return said === "host" ? true : undefined;
}
