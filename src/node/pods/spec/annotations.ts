/** What pods may ask of a VM that no field of Kubernetes says: annotations `vmsan.io/…`. */
import type { CreateOptions } from "../../../client/options.ts";
import { POD_ANNOTATION as NAME } from "../../../kube/pod-words.ts";
import type { Mount, VolumeMount } from "../../../model/mount.ts";
import { parseVolumeWord } from "../../../util/mounts.ts";
import { PodRefusedError } from "./failure.ts";

type Annotations = Readonly<Record<string, string>> | null | undefined;

const list = (text: string): string[] =>
  text
    .split(",")
    .map((word) => word.trim())
    .filter((word) => word !== "");

/** Wishes of the network, by annotation. */
const NETWORK: Record<string, (text: string) => Partial<CreateOptions>> = {
  [NAME.networkPolicy]: (text) => ({ networkPolicy: text }),
  [NAME.allowedDomains]: (text) => ({ allowedDomains: list(text) }),
  [NAME.allowedCidrs]: (text) => ({ allowedCidrs: list(text) }),
  [NAME.deniedCidrs]: (text) => ({ deniedCidrs: list(text) }),
  [NAME.allowedPorts]: (text) => ({ allowedPorts: list(text) }),
  [NAME.allowIcmp]: (text) => ({ allowIcmp: text === "true" }),
  [NAME.allowUdp]: (text) => ({ allowUdp: text === "true" }),
  [NAME.bandwidth]: (text) => ({ bandwidth: text }),
};

/** Names of all annotations that are understood, in full. */
export const ANNOTATIONS: ReadonlySet<string> = new Set(Object.values(NAME));

/** Of annotations that have few values: which those are, in words, and a test. */
const VALUES: Record<string, { words: string; allows: (text: string) => boolean }> = {
  // By itself a pod has no address, since other pods could not reach it there; but some controllers call no pod ready
  // that has none (agent-sandbox).
  [NAME.podIp]: { words: "host is the one value", allows: (text) => text === "host" },
  [NAME.command]: { words: "none is the one value", allows: (text) => text === "none" },
  [NAME.suspend]: { words: "memory is the one value", allows: (text) => text === "memory" },
  [NAME.endsAt]: {
    words: "it takes a date and time, RFC 3339",
    allows: (text) => /^\d{4}-\d\d-\d\dT/.test(text) && !Number.isNaN(Date.parse(text)),
  },
  [NAME.atEnd]: {
    words: "it takes stop or remove",
    allows: (text) => /^(stop|remove)$/.test(text),
  },
};

/** What is not right in annotations whose values are few, each with its name. */
export function wrongValues(annotations: Annotations): string[] {
  return Object.entries(VALUES).flatMap(([name, { words, allows }]) => {
    const said = annotations?.[name];
    return said === undefined || allows(said) ? [] : [`metadata.annotations[${name}]: ${words}`];
  });
}

/** What a pod's annotations ask for. */
export interface Wishes {
  network: Partial<CreateOptions>;
  /** Name on the host. */
  snapshot: string | undefined;
  /** The user of commands, where none is given by number. */
  user: string | undefined;
  warm: boolean;
  /** Volumes by name on the host. */
  volumes: VolumeMount[];
  /** Nothing is started in it. */
  idle: boolean;
}

/** What a pod's annotations ask of the network. */
export function networkWishes(annotations: Annotations): Partial<CreateOptions> {
  const network: Partial<CreateOptions> = {};
  for (const [name, read] of Object.entries(NETWORK)) {
    const text = annotations?.[name];
    if (text !== undefined) Object.assign(network, read(text));
  }
  return network;
}

/** `NAME:/path[:ro]` as a volume of the namespace. @throws PodRefusedError, ERR_VALIDATION_MOUNT, ERR_VALIDATION_VOLUME */
function volume(word: string, namespace: string): VolumeMount {
  // A namespace has no dot in its name: what is another's cannot be named.
  const mount: Mount = parseVolumeWord(`${namespace}.${word}`);
  if (mount.kind === "volume") return mount;
  throw new PodRefusedError("InvalidVolume", `${NAME.volumes}: ${word}`);
}

/**
 * Read a pod's annotations; what is not right in those of the network VM's creation says.
 * @throws PodRefusedError, ERR_VALIDATION_MOUNT, ERR_VALIDATION_VOLUME
 */
export function wishesOf(annotations: Readonly<Record<string, string>>, namespace: string): Wishes {
  const snapshot = annotations[NAME.snapshot];
  return {
    network: networkWishes(annotations),
    snapshot: snapshot === undefined ? undefined : `${namespace}.${snapshot}`,
    user: annotations[NAME.user],
    warm: annotations[NAME.warm] === "true",
    volumes: list(annotations[NAME.volumes] ?? "").map((word) => volume(word, namespace)),
    idle: annotations[NAME.command] !== undefined,
  };
}

/** Whether a pod is to have its host's address. */
export function hasHostAddress(annotations: Annotations): boolean {
  return annotations?.[NAME.podIp] !== undefined;
}

/** When a pod is to end by itself, in milliseconds since the epoch, and whether its object goes too; undefined: never. */
export function endOf(annotations: Annotations): { at: number; remove: boolean } | undefined {
  const at = Date.parse(annotations?.[NAME.endsAt] ?? "");
  if (Number.isNaN(at)) return undefined;
  return { at, remove: annotations?.[NAME.atEnd] === "remove" };
}
