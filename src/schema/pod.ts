/**
 * Pods, as the API server hands them out: the fields that are read here. Others are kept, at every depth: whether there are some
 * that would have to be heeded is looked at behind this (node/pods/spec/offered.ts).
 */
import * as z from "zod";

const text = z.string();
const texts = z.array(text).nullish();
const integer = z.number().int();
const map = z.record(text, text).nullish();

const items = z.array(z.looseObject({ key: text, path: text, mode: integer.nullish() })).nullish();

const fieldRef = z.looseObject({ fieldPath: text, apiVersion: text.nullish() });
const resourceFieldRef = z.looseObject({
  resource: text,
  containerName: text.nullish(),
  divisor: z.union([text, z.number()]).nullish(),
});
const downwardItems = z
  .array(
    z.looseObject({
      path: text,
      mode: integer.nullish(),
      fieldRef: fieldRef.nullish(),
      resourceFieldRef: resourceFieldRef.nullish(),
    }),
  )
  .nullish();

const keyRef = z.looseObject({
  name: text.default(""),
  key: text,
  optional: z.boolean().nullish(),
});

const configMapSource = z.looseObject({
  name: text.default(""),
  items,
  optional: z.boolean().nullish(),
  defaultMode: integer.nullish(),
});

const secretSource = configMapSource.omit({ name: true }).extend({
  secretName: text.nullish(),
  name: text.nullish(),
});

const projectedSource = z.looseObject({
  configMap: configMapSource.nullish(),
  secret: secretSource.nullish(),
  downwardAPI: z.looseObject({ items: downwardItems }).nullish(),
  serviceAccountToken: z
    .looseObject({ path: text, audience: text.nullish(), expirationSeconds: integer.nullish() })
    .nullish(),
});

const volume = z.looseObject({
  name: text,
  configMap: configMapSource.nullish(),
  secret: secretSource.nullish(),
  downwardAPI: z.looseObject({ items: downwardItems, defaultMode: integer.nullish() }).nullish(),
  projected: z
    .looseObject({ sources: z.array(projectedSource).nullish(), defaultMode: integer.nullish() })
    .nullish(),
  emptyDir: z
    .looseObject({ medium: text.nullish(), sizeLimit: z.union([text, z.number()]).nullish() })
    .nullish(),
  hostPath: z.looseObject({ path: text, type: text.nullish() }).nullish(),
});

const port = z.union([integer, text]);

/** What is done to a container: a command in it, a request to it, a connection. */
const act = {
  exec: z.looseObject({ command: texts }).nullish(),
  httpGet: z
    .looseObject({
      path: text.nullish(),
      port,
      scheme: text.nullish(),
      httpHeaders: z.array(z.looseObject({ name: text, value: text })).nullish(),
    })
    .nullish(),
  tcpSocket: z.looseObject({ port }).nullish(),
};

const hook = z.looseObject({ ...act, sleep: z.looseObject({ seconds: integer }).nullish() });

const probe = z.looseObject({
  ...act,
  grpc: z.looseObject({ port: integer, service: text.nullish() }).nullish(),
  initialDelaySeconds: integer.nullish(),
  timeoutSeconds: integer.nullish(),
  periodSeconds: integer.nullish(),
  successThreshold: integer.nullish(),
  failureThreshold: integer.nullish(),
  terminationGracePeriodSeconds: integer.nullish(),
});

const securityContext = z.looseObject({
  runAsUser: integer.nullish(),
  runAsGroup: integer.nullish(),
  runAsNonRoot: z.boolean().nullish(),
  readOnlyRootFilesystem: z.boolean().nullish(),
  fsGroup: integer.nullish(),
  supplementalGroups: z.array(integer).nullish(),
  sysctls: z.array(z.looseObject({ name: text, value: text })).nullish(),
});

const quantities = z.record(text, z.union([text, z.number()])).nullish();

const container = z.looseObject({
  name: text,
  image: text,
  imagePullPolicy: text.nullish(),
  command: texts,
  args: texts,
  workingDir: text.nullish(),
  env: z
    .array(
      z.looseObject({
        name: text,
        value: text.nullish(),
        valueFrom: z
          .looseObject({
            fieldRef: fieldRef.nullish(),
            resourceFieldRef: resourceFieldRef.nullish(),
            configMapKeyRef: keyRef.nullish(),
            secretKeyRef: keyRef.nullish(),
          })
          .nullish(),
      }),
    )
    .nullish(),
  envFrom: z
    .array(
      z.looseObject({
        prefix: text.nullish(),
        configMapRef: keyRef.omit({ key: true }).nullish(),
        secretRef: keyRef.omit({ key: true }).nullish(),
      }),
    )
    .nullish(),
  ports: z
    .array(
      z.looseObject({
        name: text.nullish(),
        containerPort: integer,
        hostPort: integer.nullish(),
        hostIP: text.nullish(),
        protocol: text.nullish(),
      }),
    )
    .nullish(),
  resources: z.looseObject({ requests: quantities, limits: quantities }).nullish(),
  volumeMounts: z
    .array(
      z.looseObject({
        name: text,
        mountPath: text,
        readOnly: z.boolean().nullish(),
        subPath: text.nullish(),
        subPathExpr: text.nullish(),
      }),
    )
    .nullish(),
  lifecycle: z.looseObject({ postStart: hook.nullish(), preStop: hook.nullish() }).nullish(),
  livenessProbe: probe.nullish(),
  readinessProbe: probe.nullish(),
  startupProbe: probe.nullish(),
  securityContext: securityContext.nullish(),
  stdin: z.boolean().nullish(),
  tty: z.boolean().nullish(),
  terminationMessagePath: text.nullish(),
  terminationMessagePolicy: text.nullish(),
});

/** What a container that ran before is remembered by. */
const containerStatus = z.looseObject({
  name: text,
  restartCount: integer.nullish(),
  started: z.boolean().nullish(),
  ready: z.boolean().nullish(),
});

/** A pod of this node. */
export const podSchema = z.looseObject({
  metadata: z.looseObject({
    name: text,
    namespace: text,
    uid: text.regex(/^[0-9a-zA-Z-]{1,64}$/),
    labels: map,
    annotations: map,
    /** Of its description; absent before Kubernetes 1.33. */
    generation: integer.nullish(),
    creationTimestamp: text.nullish(),
    deletionTimestamp: text.nullish(),
    deletionGracePeriodSeconds: integer.nullish(),
  }),
  spec: z.looseObject({
    nodeName: text.nullish(),
    hostname: text.nullish(),
    hostAliases: z.array(z.looseObject({ ip: text, hostnames: texts })).nullish(),
    serviceAccountName: text.nullish(),
    runtimeClassName: text.nullish(),
    restartPolicy: text.nullish(),
    activeDeadlineSeconds: integer.nullish(),
    terminationGracePeriodSeconds: integer.nullish(),
    imagePullSecrets: z.array(z.looseObject({ name: text.nullish() })).nullish(),
    tolerations: z
      .array(
        z.looseObject({
          key: text.nullish(),
          effect: text.nullish(),
          operator: text.nullish(),
          tolerationSeconds: integer.nullish(),
        }),
      )
      .nullish(),
    containers: z.array(container).min(1),
    volumes: z.array(volume).nullish(),
    securityContext: securityContext.nullish(),
  }),
  status: z
    .looseObject({
      phase: text.nullish(),
      startTime: text.nullish(),
      containerStatuses: z.array(containerStatus).nullish(),
    })
    .nullish(),
});

/** A pod of this node. */
export type Pod = z.infer<typeof podSchema>;
/** Its container. */
export type PodContainer = Pod["spec"]["containers"][number];
/** One of its volumes. */
export type PodVolume = NonNullable<Pod["spec"]["volumes"]>[number];
/** One of a container's probes. */
export type PodProbe = NonNullable<PodContainer["livenessProbe"]>;
/** What is done right after its start, or right before its end. */
export type PodHook = NonNullable<NonNullable<PodContainer["lifecycle"]>["preStop"]>;
/** A ConfigMap's or Secret's content as a volume. */
export type ContentSource = z.infer<typeof configMapSource>;
/** One file of the downward API. */
export type DownwardItem = NonNullable<z.infer<typeof downwardItems>>[number];
/** A container's resource as text. */
export type ResourceRef = z.infer<typeof resourceFieldRef>;

/** A ConfigMap or a Secret. */
export const contentSchema = z.looseObject({
  data: map,
  binaryData: map,
  type: text.nullish(),
  immutable: z.boolean().nullish(),
  metadata: z.looseObject({ resourceVersion: text.nullish() }).nullish(),
});

/** Of any object how it is told from what it was before. */
export const versionSchema = z.looseObject({
  metadata: z.looseObject({ resourceVersion: text }),
});

/** A RuntimeClass. */
export const runtimeClassSchema = z.looseObject({ handler: text });

/** What the API server answers to a request for a ServiceAccount's token. */
export const tokenSchema = z.looseObject({
  status: z.looseObject({ token: text, expirationTimestamp: text.nullish() }),
});

/** A ServiceAccount. */
export const accountSchema = z.looseObject({ metadata: z.looseObject({ uid: text }) });

/** What such a token says of the account that it is of. */
export const claimsSchema = z.looseObject({
  "kubernetes.io": z.looseObject({ serviceaccount: z.looseObject({ uid: text }) }),
});

/** A Secret's `.dockerconfigjson`; `.dockercfg` is what is inside `auths`. */
export const registryAuthsSchema = z.record(
  text,
  z.looseObject({ auth: text.nullish(), username: text.nullish(), password: text.nullish() }),
);

/** What this node remembers of a pod besides its VM: one document each. */
const podRecordSchema = z.object({
  uid: text,
  namespace: text,
  name: text,
  /** The VM's ID. */
  vm: text.optional(),
  /** The main process's stream in it. */
  run: text.optional(),
  /** When that was started. */
  startedAt: text.optional(),
  /** Which contents of ConfigMaps and the like its volumes were written with last: a digest of their versions. */
  files: text.optional(),
  restarts: integer,
  /** Seconds that it stays bound here after this node has fallen silent; absent: for ever. */
  toleratesSeconds: integer.optional(),
});

/** What this node remembers of a pod. */
export type PodRecord = z.infer<typeof podRecordSchema>;

/** A line of a node's journal: a document, or that there is none any more. */
export const podLineSchema = z.union([podRecordSchema, z.object({ gone: text })]);
