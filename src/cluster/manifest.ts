/** The pod of a VM that is asked for. Pure. What a pod cannot be is refused by the option's name. */
import type { CreateRequest } from "../model/api.ts";
import type { NetworkPolicy } from "../model/policy.ts";
import { NODE_LABEL, POD_ANNOTATION, POD_PREFIX, VM_ID_LABEL } from "../kube/pod-words.ts";
import { isHostSource } from "../client/options.ts";
import { invalid } from "../util/units.ts";
import { unsupported } from "./refused.ts";

const MIB = 2 ** 20;
const GIB = 2 ** 30;
/** What every VM has, so that it need not be said. */
const DEFAULT_DISK = 10 * GIB;
/** Of a processor that a pod keeps for itself; what it may use is its limit, as hosts' VMs share processors. */
const CPU_REQUEST_MILLI = 100;
/** How long the node's `ends-at` is ahead of a pod that has not come up yet, besides its own limit, in milliseconds. */
const STARTING_MS = 600_000;

/** The one container's name. */
const CONTAINER = "main";

const POD_NAME = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;

/** Whatever of a request pods have nothing for. @throws ERR_CLUSTER_UNSUPPORTED with the option's name */
function checkOffered(request: CreateRequest): void {
  const host = "It is a matter of one host, and Kubernetes chooses the host.";
  const wanted: [boolean, string, string][] = [
    [
      isHostSource(request.image ?? ""),
      "an image of this host's",
      "Hosts pull what their pods name from registries.",
    ],
    [request.rootfs !== undefined, "rootfs", "It is a file of one host."],
    [request.kernel !== undefined, "kernel", "It is a file of one host."],
    [request.kernelArgs.length > 0, "kernelArgs", "A pod has no field for it."],
    [request.init !== undefined, "init", "A pod's command is started by the agent."],
    [
      request.driver !== "auto",
      "driver",
      "The node says what runs its VMs (vmsan node run --driver).",
    ],
    [request.diskMode !== "overlay", "diskMode", host],
    [
      request.ports.length > 0,
      "ports",
      "The port would be one of a host that Kubernetes chooses; use port-forward.",
    ],
    [
      request.mounts.length > 0,
      "mounts",
      "Directories and volumes are one host's; a pod of your own names them by hostPath or the annotation vmsan.io/volumes.",
    ],
    [request.networks.length > 0, "networks", "Private networks are one host's."],
    [
      (request.secrets ?? []).length > 0,
      "secrets",
      "Their values would stand in the pod's object; give a pod of your own a Secret.",
    ],
    [request.idle !== undefined, "idleTimeout", "A pod is not told whether anybody uses it."],
    [
      request.onTimeout === "suspend",
      "onTimeout suspend",
      "Kubernetes has no pods that stand still.",
    ],
    [
      request.ephemeral && request.timeoutMs !== undefined,
      "timeout of an ephemeral VM",
      "It ends with its owner.",
    ],
    [
      Object.values(request.isolation).includes(false),
      "isolation",
      "The node says how its VMs are kept apart.",
    ],
    [request.platform !== undefined, "platform", "Nodes run images of their own platform."],
    [
      request.registry?.caFile !== undefined,
      "caFile",
      "Each host has the authorities of its registries (certs.d).",
    ],
    [request.bootTimeoutMs !== undefined, "bootTimeout", host],
    [
      request.policy.allowHostPorts.length > 0,
      "allowHostPorts",
      "A host's ports are its administrator's.",
    ],
    [
      Object.keys(request.labels).some((key) => key.startsWith(POD_PREFIX)),
      "labels vmsan.io/…",
      "They are the cluster's own.",
    ],
  ];
  for (const [is, what, why] of wanted) if (is) throw unsupported(what, why);
  for (const name of Object.keys(request.sysctls)) {
    if (name.replaceAll("/", ".") !== "kernel.hostname") {
      throw unsupported(`sysctl ${name}`, "A pod on vmsan has the kernel's own settings.");
    }
  }
}

/** Annotations for a network policy; all of them, null where one says nothing. */
export function policyAnnotations(policy: NetworkPolicy): Record<string, string | null> {
  const list = (words: readonly (string | number)[]): string | null =>
    words.length === 0 ? null : words.join(",");
  const { bandwidthMbit } = policy;
  if (policy.allowHostPorts.length > 0) {
    throw unsupported("allowHostPorts", "A host's ports are its administrator's.");
  }
  return {
    [POD_ANNOTATION.networkPolicy]: policy.mode,
    [POD_ANNOTATION.allowedDomains]: list(policy.allowedDomains),
    [POD_ANNOTATION.allowedCidrs]: list(policy.allowedCidrs),
    [POD_ANNOTATION.deniedCidrs]: list(policy.deniedCidrs),
    [POD_ANNOTATION.allowedPorts]: list(policy.allowedPorts),
    [POD_ANNOTATION.allowIcmp]: policy.allowIcmp ? "true" : null,
    [POD_ANNOTATION.allowUdp]: policy.allowUdp ? "true" : null,
    [POD_ANNOTATION.bandwidth]: bandwidthMbit === undefined ? null : `${bandwidthMbit}mbit`,
  };
}

/** Annotations for when a VM ends. @param at milliseconds since the epoch */
export function endAnnotations(at: number, limitMs?: number): Record<string, string> {
  return {
    [POD_ANNOTATION.endsAt]: new Date(at).toISOString(),
    ...(limitMs === undefined ? {} : { [POD_ANNOTATION.timeout]: String(limitMs) }),
  };
}

function withoutNull(values: Record<string, string | null>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(values).flatMap(([key, value]) => (value === null ? [] : [[key, value]])),
  );
}

/** Variables of a container: what Kubernetes would replace in their values stands for itself. */
function variables(env: readonly string[]): { name: string; value: string }[] {
  return env.map((entry) => {
    const at = entry.indexOf("=");
    if (at < 0)
      throw unsupported(
        `env ${entry} without a value`,
        "A pod takes no variable of its image away.",
      );
    return { name: entry.slice(0, at), value: entry.slice(at + 1).replaceAll("$", "$$$$") };
  });
}

/** As whom commands run: by number a field, by name an annotation. */
function userOf(user: string | undefined): { annotations: object; securityContext?: object } {
  if (user === undefined || user === "") return { annotations: {} };
  const [, uid, gid] = /^(\d{1,10})(?::(\d{1,10}))?$/.exec(user) ?? [];
  if (uid === undefined) return { annotations: { [POD_ANNOTATION.user]: user } };
  const group = gid === undefined ? {} : { runAsGroup: Number(gid) };
  return { annotations: {}, securityContext: { runAsUser: Number(uid), ...group } };
}

/** How long it is given: until it comes up longer than it will be. */
function lifeOf({ timeoutMs, onTimeout, ephemeral }: CreateRequest, now: number): object {
  if (ephemeral) return { [POD_ANNOTATION.atEnd]: "remove", ...endAnnotations(now + STARTING_MS) };
  if (timeoutMs === undefined) return {};
  return {
    [POD_ANNOTATION.atEnd]: onTimeout ?? "stop",
    ...endAnnotations(now + timeoutMs + STARTING_MS, timeoutMs),
  };
}

const PULL = { missing: "IfNotPresent", always: "Always", never: "Never" } as const;

/**
 * The pod of a VM.
 * @param id of the VM, `vm-` and 8 hex digits
 * @param now milliseconds since the epoch
 * @throws ERR_CLUSTER_UNSUPPORTED, ERR_VALIDATION_FLAGS for a name that no pod can have
 */
export function podFor(
  request: CreateRequest,
  id: string,
  now: number,
): { metadata: { name: string } } {
  checkOffered(request);
  const name = request.name ?? id;
  if (!POD_NAME.test(name)) {
    throw invalid(
      "FLAGS",
      "name of a pod",
      name,
      "Between its letters and digits it has '-' and '.' alone.",
      "For example: --name web-1.",
    );
  }
  const hostname = Object.values(request.sysctls)[0];
  const { annotations, securityContext } = userOf(request.user);
  const image = request.image ?? request.runtime ?? "base";
  const disk =
    request.diskSizeBytes === DEFAULT_DISK
      ? {}
      : { "ephemeral-storage": String(request.diskSizeBytes) };
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: {
      name,
      labels: { "app.kubernetes.io/managed-by": "vmsan", [VM_ID_LABEL]: id },
      annotations: {
        [POD_ANNOTATION.command]: "none",
        ...withoutNull(policyAnnotations(request.policy)),
        ...(request.image === undefined ? { [POD_ANNOTATION.runtime]: image } : {}),
        ...(request.warm === true ? { [POD_ANNOTATION.warm]: "true" } : {}),
        ...(Object.keys(request.labels).length === 0
          ? {}
          : { [POD_ANNOTATION.labels]: JSON.stringify(request.labels) }),
        ...(request.project === "" ? {} : { [POD_ANNOTATION.project]: request.project }),
        ...annotations,
        ...lifeOf(request, now),
      },
    },
    spec: {
      nodeSelector: { [NODE_LABEL]: "true" },
      tolerations: [{ key: NODE_LABEL, operator: "Exists" }],
      restartPolicy: "Never",
      automountServiceAccountToken: false,
      enableServiceLinks: false,
      ...(hostname === undefined ? {} : { hostname }),
      containers: [
        {
          name: CONTAINER,
          // Hosts know runtimes by their names, too.
          image,
          imagePullPolicy: PULL[request.pull],
          env: variables(request.env),
          ...(request.workdir === undefined || request.workdir === ""
            ? {}
            : { workingDir: request.workdir }),
          ...(securityContext === undefined ? {} : { securityContext }),
          resources: {
            limits: { cpu: String(request.vcpus), memory: String(request.memMib * MIB), ...disk },
            requests: {
              cpu: `${CPU_REQUEST_MILLI * request.vcpus}m`,
              memory: String(request.memMib * MIB),
            },
          },
        },
      ],
    },
  } as { metadata: { name: string } };
}
