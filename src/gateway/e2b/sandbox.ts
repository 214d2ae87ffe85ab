/** A VM as a sandbox: what of it is kept in labels, and how clients see it. */
import type { VmView } from "../../model/api.ts";
import type { Tokens } from "../access/tokens.ts";

/** The version of envd whose behaviour is offered; clients choose by it what they send. */
export const ENVD_VERSION = "0.6.4";

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
  /** `true`: a request to a port wakes it. */
  autoResume: "vmsan.e2b.auto-resume",
  /** `false`: no internet. */
  internet: "vmsan.e2b.internet",
  /** The network object as it was asked for, JSON. */
  network: "vmsan.e2b.network",
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

/** Whether requests to the data plane must show a token. */
export function isSecure({ labels }: VmView): boolean {
  return labels[SANDBOX_LABELS.secure] !== "false";
}

/** What the two states of clients are here; undefined for a VM that is no sandbox any more. */
export function stateOf(view: VmView): "running" | "paused" | undefined {
  if (!isSandbox(view)) return undefined;
  if (view.status === "running") return "running";
  return view.status === "paused" ? "paused" : undefined;
}

/** The short form: what create and connect answer. */
export function sandboxReply(view: VmView, tokens: Tokens, domain: string | null): object {
  const { labels, id } = view;
  return {
    templateID: labels[SANDBOX_LABELS.template],
    ...(labels[SANDBOX_LABELS.alias] === undefined ? {} : { alias: labels[SANDBOX_LABELS.alias] }),
    sandboxID: id,
    clientID: "vmsan",
    envdVersion: ENVD_VERSION,
    ...(isSecure(view) ? { envdAccessToken: tokens.of(id, "data") } : {}),
    ...(labels["vmsan.public-ports"] === "true"
      ? {}
      : { trafficAccessToken: tokens.of(id, "traffic") }),
    domain,
  };
}

/** The long form: what get and list answer. */
export function sandboxDetail(view: VmView, tokens: Tokens, domain: string | null): object {
  const { labels } = view;
  const startedAt = view.startedAt ?? view.createdAt;
  return {
    ...sandboxReply(view, tokens, domain),
    startedAt,
    endAt: view.timeoutAt ?? startedAt,
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
    volumeMounts: [],
  };
}
