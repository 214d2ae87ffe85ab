/** A VM as a sandbox: what of it is kept in labels, and how clients see it. */
import type { VmView } from "../../model/api.ts";
import type { GatewayKey } from "../../model/gateway.ts";
import type { Tokens } from "../access/tokens.ts";
import { CLIENT_ID } from "../ports/access.ts";

/** The version of envd whose behaviour is offered; clients choose by it what they send. */
const ENVD_VERSION = "0.6.4";

/** Labels of VMs that are sandboxes. */
export const SANDBOX_LABELS = {
  /** ID of the template, which makes a VM a sandbox. */
  template: "vmsan.e2b.template",
  /** The name that the template was asked for by. */
  alias: "vmsan.e2b.alias",
  /** `false`: no tokens on the data plane. */
  secure: "vmsan.e2b.secure",
  /** `pause` or `kill`. */
  onTimeout: "vmsan.e2b.on-timeout",
  /** `false`: its disk alone is kept when it pauses at its end. */
  pauseMemory: "vmsan.e2b.pause-memory",
  /** `true`: a request to a port wakes it. */
  autoResume: "vmsan.e2b.auto-resume",
  /** `false`: no internet. */
  internet: "vmsan.e2b.internet",
  /** The network object as it was asked for, JSON. */
  network: "vmsan.e2b.network",
  /** Names and places of its volumes as they were asked for, JSON. */
  volumes: "vmsan.e2b.volumes",
} as const;

/** Before the keys of the caller's metadata, which are labels of their own. */
const METADATA = "e2b.metadata.";

/** Labels for the caller's metadata. */
export function metadataLabels(metadata: Record<string, string>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(metadata).map(([key, value]) => [`${METADATA}${key}`, value]),
  );
}

/** The caller's metadata of a VM. */
export function metadataOf({ labels }: VmView): Record<string, string> {
  return Object.fromEntries(
    Object.entries(labels)
      .filter(([label]) => label.startsWith(METADATA))
      .map(([label, value]) => [label.slice(METADATA.length), value]),
  );
}

/** Whether a VM was made as a sandbox. */
export function isSandbox({ labels }: VmView): boolean {
  return labels[SANDBOX_LABELS.template] !== undefined;
}

/** The volumes that it mounts themselves, and no copies of them, by their names on the host. */
export function volumesOf({ mounts }: VmView): string[] {
  return mounts.flatMap((mount) =>
    mount.kind === "volume" && mount.copy !== true ? [mount.name] : [],
  );
}

/** Whether requests to the data plane must show a token. */
export function isSecure({ labels }: VmView): boolean {
  return labels[SANDBOX_LABELS.secure] !== "false";
}

/** Whether it is to sleep at its end instead of being removed, its memory included. */
export function keepsMemory(labels: Record<string, string>): boolean {
  return (
    labels[SANDBOX_LABELS.onTimeout] === "pause" && labels[SANDBOX_LABELS.pauseMemory] !== "false"
  );
}

/**
 * What the two states of clients are here; undefined for a VM that is no sandbox any more. One that was
 * stopped is paused with its disk alone; one whose time was over is so only if that was asked for.
 */
export function stateOf(view: VmView): "running" | "paused" | undefined {
  const { status, stopReason, labels } = view;
  if (!isSandbox(view)) return undefined;
  if (status === "running") return isOver(view) ? undefined : "running";
  if (status === "paused" || status === "suspended") return "paused";
  if (status !== "stopped") return undefined;
  const kept = stopReason === undefined || labels[SANDBOX_LABELS.onTimeout] === "pause";
  return kept ? "paused" : undefined;
}

/** Whether its time is over and it is to go, though the daemon may still be stopping it. */
function isOver({ labels, timeoutAt }: VmView): boolean {
  const kept = labels[SANDBOX_LABELS.onTimeout] === "pause";
  return !kept && timeoutAt !== undefined && Date.parse(timeoutAt) <= Date.now();
}

/**
 * How much later than its sandbox's end a VM that is to pause with its memory is stopped by the daemon,
 * in milliseconds: the gateway puts it to sleep before, and if there is none then, its disk is kept.
 */
export const PAUSE_GRACE_MS = 30_000;

/** When a sandbox's time is over, RFC 3339; undefined for one without a limit. */
export function endOf({ labels, timeoutAt }: VmView): string | undefined {
  if (timeoutAt === undefined || !keepsMemory(labels)) return timeoutAt;
  return new Date(Date.parse(timeoutAt) - PAUSE_GRACE_MS).toISOString();
}

/** How long it was last asked to live, in milliseconds. */
export function lifetimeOf({ labels, timeoutMs = 300_000 }: VmView): number {
  return keepsMemory(labels) ? timeoutMs - PAUSE_GRACE_MS : timeoutMs;
}

/** Whether requests to a paused sandbox wake it. */
export function wakesOnUse({ labels }: VmView): boolean {
  return labels[SANDBOX_LABELS.autoResume] === "true";
}

/** Whom a sandbox is described to. */
export interface SandboxReader {
  tokens: Tokens;
  /** The key in whose name the tokens are given. */
  key: GatewayKey;
  /** The domain of sandboxes' hosts, or null for the client's own. */
  domain: string | null;
}

/** The short form: what create and connect answer. */
export function sandboxReply(view: VmView, { tokens, key, domain }: SandboxReader): object {
  const { labels, id } = view;
  return {
    templateID: labels[SANDBOX_LABELS.template],
    ...(labels[SANDBOX_LABELS.alias] === undefined ? {} : { alias: labels[SANDBOX_LABELS.alias] }),
    sandboxID: id,
    clientID: CLIENT_ID,
    envdVersion: ENVD_VERSION,
    ...(isSecure(view) ? { envdAccessToken: tokens.of(key, "data", id) } : {}),
    ...(labels["vmsan.public-ports"] === "true"
      ? {}
      : { trafficAccessToken: tokens.of(key, "traffic", id) }),
    domain,
  };
}

/** The long form: what get and list answer. */
export function sandboxDetail(view: VmView, reader: SandboxReader): object {
  const { labels } = view;
  const startedAt = view.startedAt ?? view.createdAt;
  return {
    ...sandboxReply(view, reader),
    startedAt,
    endAt: endOf(view) ?? startedAt,
    cpuCount: view.vcpus,
    memoryMB: view.memMib,
    diskSizeMB: Math.round(view.diskSizeBytes / 2 ** 20),
    metadata: metadataOf(view),
    state: stateOf(view) ?? "paused",
    allowInternetAccess: labels[SANDBOX_LABELS.internet] !== "false",
    ...(labels[SANDBOX_LABELS.network] === undefined
      ? {}
      : { network: JSON.parse(labels[SANDBOX_LABELS.network] ?? "{}") as object }),
    lifecycle: {
      autoResume: labels[SANDBOX_LABELS.autoResume] === "true",
      onTimeout: labels[SANDBOX_LABELS.onTimeout] ?? "kill",
    },
    volumeMounts: JSON.parse(labels[SANDBOX_LABELS.volumes] ?? "[]") as object[],
  };
}
