/** A pod as a VM and the command in it. */
import { isHostSource } from "../../../client/options.ts";
import type { CreateOptions } from "../../../client/options.ts";
import { POD_PREFIX } from "../../../kube/pod-words.ts";
import type { VmView } from "../../../model/api.ts";
import type { Pod, PodContainer } from "../../../schema/pod.ts";
import type { ApiServer } from "../../../kube/api-server.ts";
import { wishesOf } from "./annotations.ts";
import type { HostFacts } from "./downward.ts";
import { expand, variablesOf } from "./env.ts";
import { PodRefusedError } from "./failure.ts";
import { volumesOf } from "../files/volumes.ts";
import type { AllowedHostPath, PodFiles } from "../files/volumes.ts";
import { checkRuntimeClass } from "./runtime-class.ts";
import { References } from "../files/references.ts";
import type { Tokens } from "../files/tokens.ts";
import { sizesOf } from "./sizes.ts";
import { bracketed } from "../../../util/hosts/bracketed.ts";

/** Label of a VM with the UID of its pod: what belongs together is found by it. */
export const POD_LABEL = `${POD_PREFIX}pod-uid`;
/** Labels of a VM with its pod's namespace and name. */
export const POD_NAMESPACE_LABEL = `${POD_PREFIX}pod-namespace`;
export const POD_NAME_LABEL = `${POD_PREFIX}pod-name`;

/** Labels of the VM of a pod. */
export function podLabels({ metadata }: Pod): Record<string, string> {
  const { uid, namespace, name } = metadata;
  return { [POD_LABEL]: uid, [POD_NAMESPACE_LABEL]: namespace, [POD_NAME_LABEL]: name };
}

/** What pods' VMs are made with on this node. */
export interface PodHost extends HostFacts {
  hostPaths: readonly AllowedHostPath[];
  driver: NonNullable<CreateOptions["driver"]>;
}

/** How a pod is run. */
export interface PodPlan {
  vm: CreateOptions;
  /** Nothing is started: the VM runs by itself. */
  idle: boolean;
  /** Undefined: the image's own. */
  command: string[] | undefined;
  args: string[];
  files: PodFiles;
  /** Groups of its processes besides its user's. */
  groups: number[];
  /** What the guest is called; undefined: as the snapshot has it that it goes on from. */
  hostname: string | undefined;
  /** Lines of /etc/hosts besides the VM's own. */
  hosts: string[];
  /** Its root is read-only but for what is mounted. */
  sealed: boolean;
  /** Names of volumes of the host that it mounts. */
  volumes: string[];
  /** What it names, fetched. */
  references: References;
}

/** The container that is the pod; others have been refused. */
export function containerOf(pod: Pod): PodContainer {
  const [container] = pod.spec.containers;
  if (container === undefined) throw new PodRefusedError("InvalidPod", "spec.containers is empty");
  return container;
}

/** As whom its command runs; undefined: as the image says. */
function userOf(pod: Pod, container: PodContainer): string | undefined {
  const own = container.securityContext;
  const shared = pod.spec.securityContext;
  const user = own?.runAsUser ?? shared?.runAsUser ?? undefined;
  const group = own?.runAsGroup ?? shared?.runAsGroup ?? undefined;
  if (user === undefined) {
    if (group === undefined) return undefined;
    throw new PodRefusedError(
      "FieldNotOffered",
      "securityContext.runAsGroup is offered with runAsUser alone",
    );
  }
  return group === undefined ? String(user) : `${user}:${group}`;
}

/** Groups of a pod's processes besides their user's: that of its volumes, and others. */
function groupsOf({ spec }: Pod): number[] {
  const { fsGroup, supplementalGroups } = spec.securityContext ?? {};
  const own = fsGroup === undefined || fsGroup === null ? [] : [fsGroup];
  return [...new Set([...(supplementalGroups ?? []), ...own])];
}

/** Whether its command must not run as root. */
export function mustNotBeRoot(pod: Pod, container: PodContainer): boolean {
  const own = container.securityContext?.runAsNonRoot;
  return (own ?? pod.spec.securityContext?.runAsNonRoot) === true;
}

/** As whom the commands of a pod's VM run, in the image's words; empty: as root. */
export function commandUser({ defaults, image }: Pick<VmView, "defaults" | "image">): string {
  return defaults.user ?? image?.config.user ?? "";
}

/** Whether a user is root; none is root, too. */
export function isRoot(user: string): boolean {
  return /^(0+|root)?(:|$)/.test(user);
}

/** Ports of the host that lead into the guest, as words. */
function portsOf({ ports }: PodContainer): string[] {
  return (ports ?? []).flatMap(({ containerPort, hostPort, hostIP, protocol }) => {
    if (!hostPort) return [];
    // All of the host's, as Kubernetes has it.
    const address = hostIP || "0.0.0.0";
    return [
      `${bracketed(address)}:${hostPort}:${containerPort}${protocol === "UDP" ? "/udp" : ""}`,
    ];
  });
}

/** The name that the guest has. */
function hostnameOf({ metadata, spec }: Pod): string {
  return (spec.hostname ?? metadata.name).slice(0, 63).replace(/[.-]+$/, "");
}

/** Lines of /etc/hosts that a pod wants, as the kubelet writes them. */
function hostsOf({ spec }: Pod): string[] {
  const lines = (spec.hostAliases ?? []).flatMap(({ ip, hostnames }) =>
    hostnames && hostnames.length > 0 ? [[ip, ...hostnames].join("\t")] : [],
  );
  return lines.length === 0 ? [] : ["# Entries added by HostAliases.", ...lines];
}

/** Settings of the guest's kernel that a pod wants. */
function sysctlsOf({ spec }: Pod): string[] {
  return (spec.securityContext?.sysctls ?? []).map(({ name, value }) => `${name}=${value}`);
}

/**
 * How a pod is run here.
 * @param tokens that its files have
 * @throws PodRefusedError, PodNotReadyError, ERR_VALIDATION_*
 */
export async function planPod(
  pod: Pod,
  host: PodHost,
  api: ApiServer,
  tokens: Tokens,
): Promise<PodPlan> {
  const container = containerOf(pod);
  const { namespace, annotations } = pod.metadata;
  const references = new References(api, pod);
  const sizes = sizesOf(container);
  if (isHostSource(container.image)) {
    throw new PodRefusedError(
      "InvalidImageName",
      `spec.containers[0].image: ${JSON.stringify(container.image.slice(0, 200))} names something of the host's own`,
    );
  }
  await checkRuntimeClass(pod, api);
  const variables = await variablesOf(pod, container, references, host);
  const files = await volumesOf(pod, container, references, host, { tokens, variables });
  const wishes = wishesOf(annotations ?? {}, namespace);
  const user = userOf(pod, container) ?? wishes.user;
  const groups = groupsOf(pod);
  const env = [...variables].map(([key, value]) => `${key}=${value}`);
  const common: CreateOptions = {
    labels: podLabels(pod),
    env,
    ...(user === undefined ? {} : { user }),
    ...(container.workingDir ? { workdir: container.workingDir } : {}),
    ports: portsOf(container),
    ...wishes.network,
  };
  const all = [...files.mounts, ...wishes.volumes];
  const sysctls = sysctlsOf(pod);
  let vm: CreateOptions;
  let hostname: string | undefined;
  if (wishes.snapshot === undefined) {
    hostname = hostnameOf(pod);
    vm = {
      ...common,
      // As runtimes of containers have it.
      env: [...(variables.has("HOSTNAME") ? [] : [`HOSTNAME=${hostname}`]), ...env],
      image: container.image,
      driver: host.driver,
      vcpus: sizes.vcpus,
      memory: sizes.memMib,
      ...(sizes.diskGib === undefined ? {} : { disk: sizes.diskGib }),
      mounts: all,
      sysctls: [`kernel.hostname=${hostname}`, ...sysctls],
      ...(wishes.warm ? { warm: true } : {}),
    };
  } else {
    if (all.length > 0) {
      throw new PodRefusedError(
        "FieldNotOffered",
        "spec.volumes: a VM that goes on from a snapshot has the volumes that the snapshot has",
      );
    }
    const refuse = (field: string, what: string): PodRefusedError =>
      new PodRefusedError(
        "FieldNotOffered",
        `spec.securityContext.${field}: a VM that goes on from a snapshot has the ${what} that the snapshot has`,
      );
    if (sysctls.length > 0) throw refuse("sysctls", "settings");
    if (groups.length > 0) throw refuse("fsGroup and supplementalGroups", "user");
    vm = { ...common, snapshot: wishes.snapshot };
  }
  const words = (list: readonly string[] | null | undefined): string[] =>
    (list ?? []).map((word) => expand(word, variables));
  const command = words(container.command);
  return {
    vm,
    idle: wishes.idle,
    command: command.length === 0 ? undefined : command,
    args: words(container.args),
    files,
    groups,
    hostname,
    hosts: hostsOf(pod),
    sealed: container.securityContext?.readOnlyRootFilesystem === true,
    volumes: wishes.volumes.map(({ name }) => name),
    references,
  };
}
