/**
 * Which fields of a pod this node heeds. What it does not know, or what is asked of a field is not offered,
 * is refused by name: nothing of a pod is passed over in silence. Pure.
 */
import { isDeepStrictEqual } from "node:util";
import { POD_PREFIX } from "../../../kube/pod-words.ts";
import type { Pod } from "../../../schema/pod.ts";
import { ANNOTATIONS, wrongValues } from "./annotations.ts";

/** What is asked of one value: anything, what a test allows, or the same of each of its fields. */
type Rule = true | ((value: unknown) => boolean) | Fields | { each: Rule };
interface Fields {
  readonly fields: Readonly<Record<string, Rule>>;
}

const fields = (rules: Record<string, Rule>): Fields => ({ fields: rules });
const each = (rule: Rule): { each: Rule } => ({ each: rule });
const oneOf =
  (...values: unknown[]) =>
  (value: unknown): boolean =>
    values.includes(value);

/**
 * Whether a setting below /proc/sys is one of those that a pod may have: the ones that Kubernetes gives pods namespaces for, safe
 * and unsafe alike since a VM's are seen by nobody else, and memory management, of which a VM has its own.
 */
function isOwnSetting(name: unknown): boolean {
  const own = /^(kernel\/(shm|msg)[a-z_]+|kernel\/sem|fs\/mqueue\/.+|net\/.+|vm\/.+)$/;
  return typeof name === "string" && own.test(name.replaceAll(".", "/"));
}

/** A value that says nothing, as the API server's defaults are. */
function isEmpty(value: unknown): boolean {
  if (value === undefined || value === null || value === false || value === "") return true;
  if (Array.isArray(value)) return value.length === 0;
  return typeof value === "object" && Object.keys(value).length === 0;
}

const SIZES = fields({
  requests: fields({ cpu: true, memory: true, "ephemeral-storage": true }),
  limits: fields({ cpu: true, memory: true, "ephemeral-storage": true }),
});

const keyToPath = each(fields({ key: true, path: true, mode: true }));
const fieldRef = fields({ apiVersion: true, fieldPath: true });
const resourceFieldRef = fields({ containerName: true, resource: true, divisor: true });
const downward = each(fields({ path: true, mode: true, fieldRef, resourceFieldRef }));
const keyRef = fields({ name: true, key: true, optional: true });
const contentRef = fields({ name: true, optional: true });
const configMap = fields({ name: true, items: keyToPath, optional: true, defaultMode: true });
const secret = fields({
  name: true,
  secretName: true,
  items: keyToPath,
  optional: true,
  defaultMode: true,
});

const act = {
  exec: fields({ command: true }),
  httpGet: fields({
    path: true,
    port: true,
    scheme: true,
    httpHeaders: each(fields({ name: true, value: true })),
  }),
  tcpSocket: fields({ port: true }),
};

const hook = fields({ ...act, sleep: fields({ seconds: true }) });

const probe = fields({
  ...act,
  grpc: fields({ port: true, service: true }),
  initialDelaySeconds: true,
  timeoutSeconds: true,
  periodSeconds: true,
  successThreshold: true,
  failureThreshold: true,
  terminationGracePeriodSeconds: true,
});

const container = fields({
  name: true,
  image: true,
  imagePullPolicy: true,
  command: true,
  args: true,
  workingDir: true,
  env: each(
    fields({
      name: true,
      value: true,
      valueFrom: fields({
        fieldRef,
        resourceFieldRef,
        configMapKeyRef: keyRef,
        secretKeyRef: keyRef,
      }),
    }),
  ),
  envFrom: each(fields({ prefix: true, configMapRef: contentRef, secretRef: contentRef })),
  ports: each(
    fields({
      name: true,
      containerPort: true,
      hostPort: true,
      hostIP: true,
      protocol: oneOf("TCP", "UDP"),
    }),
  ),
  resources: SIZES,
  // What is to happen when sizes change: they do not.
  resizePolicy: true,
  volumeMounts: each(
    fields({
      name: true,
      mountPath: true,
      readOnly: true,
      subPath: true,
      subPathExpr: true,
      mountPropagation: oneOf("None"),
      recursiveReadOnly: oneOf("Disabled"),
    }),
  ),
  lifecycle: fields({ postStart: hook, preStop: hook }),
  livenessProbe: probe,
  readinessProbe: probe,
  startupProbe: probe,
  terminationMessagePath: true,
  terminationMessagePolicy: oneOf("File", "FallbackToLogsOnError"),
  securityContext: fields({
    runAsUser: true,
    runAsGroup: true,
    runAsNonRoot: true,
    // These keep a process from the kernel that it shares with others; this one has a kernel of its own.
    allowPrivilegeEscalation: true,
    // Root in a VM has all of them, and a program of another user's gets none by a pod anywhere.
    capabilities: fields({ add: true, drop: true }),
    seccompProfile: fields({ type: oneOf("RuntimeDefault", "Unconfined") }),
    appArmorProfile: fields({ type: oneOf("RuntimeDefault", "Unconfined") }),
    // As on every host without SELinux.
    seLinuxOptions: true,
    procMount: oneOf("Default"),
    readOnlyRootFilesystem: true,
  }),
  stdin: true,
  stdinOnce: true,
  tty: true,
});

const volume = fields({
  name: true,
  configMap,
  secret,
  downwardAPI: fields({ items: downward, defaultMode: true }),
  projected: fields({
    defaultMode: true,
    sources: each(
      fields({
        configMap,
        secret,
        downwardAPI: fields({ items: downward }),
        serviceAccountToken: fields({ path: true, audience: true, expirationSeconds: true }),
      }),
    ),
  }),
  emptyDir: fields({ medium: oneOf("", "Memory"), sizeLimit: true }),
  hostPath: fields({ path: true, type: oneOf("", "Directory") }),
});

/** A pod's specification; what stands here and is read by nobody is the control plane's own business. */
const spec = fields({
  containers: each(container),
  volumes: each(volume),
  restartPolicy: true,
  terminationGracePeriodSeconds: true,
  activeDeadlineSeconds: true,
  imagePullSecrets: each(fields({ name: true })),
  hostname: true,
  hostAliases: each(fields({ ip: true, hostnames: true })),
  // A part of the name that a headless Service gives: Services do not select these pods.
  subdomain: true,
  serviceAccountName: true,
  serviceAccount: true,
  automountServiceAccountToken: true,
  securityContext: fields({
    runAsUser: true,
    runAsGroup: true,
    runAsNonRoot: true,
    seLinuxOptions: true,
    seccompProfile: fields({ type: oneOf("RuntimeDefault", "Unconfined") }),
    appArmorProfile: fields({ type: oneOf("RuntimeDefault", "Unconfined") }),
    fsGroup: true,
    // Volumes are new with each pod: what is to happen to those that are not never does.
    fsGroupChangePolicy: oneOf("Always", "OnRootMismatch"),
    supplementalGroups: true,
    supplementalGroupsPolicy: oneOf("Merge"),
    sysctls: each(fields({ name: isOwnSetting, value: true })),
  }),
  // A VM asks the name server that its network policy gives it, whatever these say of the cluster's.
  dnsPolicy: oneOf("ClusterFirst", "Default", "ClusterFirstWithHostNet"),
  // There are no Services to link.
  enableServiceLinks: true,
  os: fields({ name: oneOf("linux") }),
  // Whatever it says: users of a VM are none of the host's.
  hostUsers: true,
  // Where it is placed, and when.
  nodeName: true,
  nodeSelector: true,
  affinity: true,
  tolerations: true,
  topologySpreadConstraints: true,
  schedulerName: true,
  schedulingGates: true,
  schedulingGroup: true,
  workloadRef: true,
  priority: true,
  priorityClassName: true,
  preemptionPolicy: true,
  // Looked at by its object (runtime-class.ts); what it adds to the pod's sizes is the scheduler's.
  runtimeClassName: true,
  overhead: true,
});

function look(rule: Rule, value: unknown, path: string, refused: string[]): void {
  if (isEmpty(value) || rule === true) return;
  if (typeof rule === "function") {
    if (!rule(value)) refused.push(`${path}: ${JSON.stringify(value)}`);
  } else if ("each" in rule) {
    if (!Array.isArray(value)) refused.push(path);
    else value.forEach((entry, index) => look(rule.each, entry, `${path}[${index}]`, refused));
  } else {
    if (typeof value !== "object" || value === null) {
      refused.push(path);
      return;
    }
    for (const [key, inner] of Object.entries(value)) {
      const known = rule.fields[key];
      if (known !== undefined) look(known, inner, `${path}.${key}`, refused);
      else if (!isEmpty(inner)) refused.push(`${path}.${key}`);
    }
  }
}

/** Sources of volumes that a place in the guest may be a part of (`subPath`). */
const PARTED_SOURCES = ["configMap", "secret", "downwardAPI", "projected", "emptyDir"] as const;

/** A part of a volume of which only the whole is mounted: directories of the host. */
function subPaths(pod: { containers?: unknown; volumes?: unknown }, refused: string[]): void {
  const volumes = (Array.isArray(pod.volumes) ? pod.volumes : []) as Record<string, unknown>[];
  const containers = (Array.isArray(pod.containers) ? pod.containers : []) as {
    volumeMounts?: { name?: string; subPath?: string; subPathExpr?: string }[] | null;
  }[];
  for (const [index, mount] of (containers[0]?.volumeMounts ?? []).entries()) {
    const field = isEmpty(mount.subPath) ? "subPathExpr" : "subPath";
    if (isEmpty(mount[field])) continue;
    const source = volumes.find(({ name }) => name === mount.name);
    if (PARTED_SOURCES.some((kind) => (source?.[kind] ?? undefined) !== undefined)) continue;
    refused.push(`spec.containers[0].volumeMounts[${index}].${field}`);
  }
}

/** A directory on the VM's disk has what room that has; one in memory may be bounded. */
function sizeLimits({ volumes }: { volumes?: unknown }, refused: string[]): void {
  type EmptyDir = { emptyDir?: { medium?: string; sizeLimit?: unknown } | null };
  for (const [index, { emptyDir }] of ((volumes ?? []) as EmptyDir[]).entries()) {
    if (isEmpty(emptyDir?.sizeLimit) || emptyDir?.medium === "Memory") continue;
    refused.push(`spec.volumes[${index}].emptyDir.sizeLimit`);
  }
}

/** Fields of a pod that are not offered, by their paths; none: all of it is. */
export function refusedFields(pod: {
  metadata: { annotations?: Record<string, string> | null | undefined };
  spec: object;
}): string[] {
  const refused: string[] = [];
  look(spec, pod.spec, "spec", refused);
  const { containers } = pod.spec as { containers?: unknown[] };
  for (let index = 1; index < (containers?.length ?? 0); index += 1) {
    refused.push(`spec.containers[${index}]`);
  }
  subPaths(pod.spec, refused);
  sizeLimits(pod.spec, refused);
  for (const name of Object.keys(pod.metadata.annotations ?? {})) {
    if (name.startsWith(POD_PREFIX) && !ANNOTATIONS.has(name)) {
      refused.push(`metadata.annotations[${name}]`);
    }
  }
  return [...refused, ...wrongValues(pod.metadata.annotations)];
}

/** What of a pod that is bound is not offered as it is now; of the fields that may be changed then. */
export function refusedChanges(before: Pod, now: Pod): string[] {
  const resources = ({ spec }: Pod): unknown => spec.containers[0]?.resources;
  const resized = !isDeepStrictEqual(resources(before), resources(now));
  return [
    ...refusedFields(now),
    ...(resized ? ["spec.containers[0].resources of a pod that is bound"] : []),
  ];
}
