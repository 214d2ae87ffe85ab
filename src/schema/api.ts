/**
 * schema/: validation of outside data. Takes anything, gives a noun of model/ or an error
 * that names the field. Holds the one schema library; nothing on the CLI's start-up path
 * may import it.
 *
 * api.ts: bodies of the HTTP API.
 */
import * as z from "zod";
import type { CloneRequest, CreateRequest, SnapshotRequest, UpdateRequest } from "../model/api.ts";
import { VmsanError } from "../model/errors.ts";
import { MAX_SYSCTLS, parseKernelArgs, parseSysctls } from "../util/guest-settings.ts";
import { MAX_MOUNTS, checkMounts, parseTarget, parseVolumeName } from "../util/mounts.ts";
import { MAX_NETWORKS, parseName } from "../util/names.ts";
import { checkMemberships, membershipSchema } from "./private-networks.ts";
import { registryAccessSchema } from "./registry.ts";
import { validate, withoutUndefined } from "./validate.ts";

export { validate, withoutUndefined } from "./validate.ts";

const text = (max: number): z.ZodString => z.string().max(max);
const absolutePath = text(4096).regex(/^\/[^\0]*$/, "must be an absolute path");
const port = z.int().min(1).max(65535);
const envEntry = text(131_072).regex(/^[^=\0]+(=[^\0]*)?$/s, "must be KEY=VALUE or KEY");
/** Most bytes of a VM's environment and of its labels, as JSON: all VMs of a host, whosever they are, are listed in one reply. */
const MAX_ENV = 256 << 10;
const MAX_LABELS = 64 << 10;
const list = <T extends z.ZodType>(item: T, max: number): z.ZodArray<T> => z.array(item).max(max);

const sum = (texts: readonly string[]): number =>
  texts.reduce((total, one) => total + Buffer.byteLength(JSON.stringify(one)), 0);
const environment = list(envEntry, 10_000).refine(
  (entries) => sum(entries) <= MAX_ENV,
  `at most ${MAX_ENV} bytes of JSON in all`,
);
const labels = z
  .record(text(256), text(4096))
  .refine(
    (all) => sum(Object.entries(all).flat()) <= MAX_LABELS,
    `at most ${MAX_LABELS} bytes of JSON in all`,
  );

/** A network policy; addresses and names themselves are checked by network/. */
export const policySchema = z.strictObject({
  mode: z.enum(["allow-all", "deny-all", "custom", "none"]),
  allowedDomains: list(text(255), 1000),
  allowedCidrs: list(text(64), 1000),
  deniedCidrs: list(text(64), 1000),
  // Absent in what versions without it have stored.
  allowedPorts: list(port, 100).default([]),
  allowHostPorts: list(port, 100),
  allowIcmp: z.boolean(),
  allowUdp: z.boolean(),
  bandwidthMbit: z.int().min(1).max(1000).optional(),
});

/** A published port. */
export const publishedPortSchema = z.strictObject({
  protocol: z.enum(["tcp", "udp"]),
  hostAddress: z.union([z.ipv4(), z.ipv6()]),
  hostPort: port,
  guestPort: port,
});

const bootTimeoutMs = z.int().min(1).max(86_400_000).optional();

const hostSchema = z.strictObject({ assumeKvm: z.boolean().optional(), bootTimeoutMs });

/** The body of `POST /v1/vms/ID/start`. */
export const startSchema = z.strictObject({ host: hostSchema.optional(), bootTimeoutMs });

const endAction = z.enum(["suspend", "stop", "remove"]);
const idleSchema = z.strictObject({
  ms: z
    .int()
    .min(1000)
    .max(2 ** 31 - 1),
  action: endAction,
});

const bindSchema = z.strictObject({
  kind: z.literal("bind"),
  source: absolutePath,
  target: absolutePath,
  readonly: z.boolean().default(false),
  // What a VM's view says of itself may be asked for again; the host looks anyway.
  file: z.literal(true).optional(),
});
// Without `.`, `..` and empty names.
const part = text(4095)
  .regex(/^(?!\.{0,2}(?:\/|$))[^/]+(?:\/(?!\.{0,2}(?:\/|$))[^/]+)*$/)
  .optional();
const volumeSchema = z.strictObject({
  kind: z.literal("volume"),
  name: text(128),
  target: absolutePath,
  readonly: z.boolean().default(false),
  part,
  nocopy: z.boolean().default(false),
  // As of `file` above.
  shared: z.literal(true).optional(),
  file: z.literal(true).optional(),
});
/** The largest number of a user or group. */
const MOST_ID = 2 ** 32 - 2;
const mode = z.int().min(0).max(0o7777);
/** Of what the VM itself has, and may show at several places. */
const shown = {
  name: text(128)
    .regex(/^[^/]+$/)
    .optional(),
  part,
  readonly: z.boolean().optional(),
};
const anonymousSchema = z.strictObject({
  kind: z.literal("anonymous"),
  target: absolutePath,
  ...shown,
  empty: z.literal(true).optional(),
  mode: mode.optional(),
  gid: z.int().min(0).max(MOST_ID).optional(),
});
const tmpfsSchema = z.strictObject({
  kind: z.literal("tmpfs"),
  target: absolutePath,
  ...shown,
  sizeBytes: z
    .int()
    .min(4096)
    .max(2 ** 45)
    .optional(),
  mode: mode.optional(),
  uid: z.int().min(0).max(MOST_ID).optional(),
  gid: z.int().min(0).max(MOST_ID).optional(),
  noexec: z.literal(true).optional(),
});

/** Something to be mounted; places and names themselves are checked by util/mounts.ts. */
const mountSchema = z.discriminatedUnion("kind", [
  bindSchema,
  volumeSchema,
  anonymousSchema,
  tmpfsSchema,
]);

/** Something that is mounted: a copy of a volume cannot be asked for. */
export const keptMountSchema = z.discriminatedUnion("kind", [
  bindSchema,
  volumeSchema.extend({ copy: z.literal(true).optional() }),
  anonymousSchema,
  tmpfsSchema,
]);

/** A secret; what is wrong with it is said without showing it. */
const secretSchema = z.strictObject({
  name: text(128).regex(/^[A-Za-z_][A-Za-z0-9_]*$/, "must be the name of a variable"),
  value: text(8192),
  domains: list(text(300), 100).default([]),
  places: z
    .array(z.enum(["header", "query", "body"]))
    .min(1)
    .max(3)
    .optional(),
});

/** A VM to be made, complete. */
export const createSchema = z.strictObject({
  image: text(4096).min(1).optional(),
  runtime: text(64).min(1).optional(),
  rootfs: absolutePath.optional(),
  kernel: absolutePath.optional(),
  name: text(63).optional(),
  vcpus: z.int().min(1).max(32),
  memMib: z.int().min(128).max(32768),
  diskSizeBytes: z
    .int()
    .min(2 ** 30)
    .max(2 ** 40)
    .multipleOf(4096),
  diskMode: z.enum(["overlay", "flat"]),
  project: text(256),
  labels,
  driver: z.enum(["auto", "firecracker", "qemu", "fake"]),
  env: environment,
  user: text(256).optional(),
  workdir: absolutePath.optional(),
  policy: policySchema,
  ports: list(publishedPortSchema, 256),
  networks: list(membershipSchema, MAX_NETWORKS).default([]),
  secrets: list(secretSchema, 32).optional(),
  timeoutMs: z
    .int()
    .min(1)
    .max(2 ** 31 - 1)
    .optional(),
  onTimeout: endAction.optional(),
  idle: idleSchema.optional(),
  isolation: z.strictObject({
    seccomp: z.boolean(),
    pidNamespace: z.boolean(),
    cgroup: z.boolean(),
    networkNamespace: z.boolean(),
  }),
  pull: z.enum(["missing", "always", "never"]),
  platform: text(64).optional(),
  registry: registryAccessSchema.optional(),
  host: hostSchema.optional(),
  init: absolutePath.optional(),
  mounts: list(mountSchema, MAX_MOUNTS).default([]),
  kernelArgs: list(text(1024), 256).default([]),
  sysctls: z
    .record(text(256), text(1024))
    .refine((all) => Object.keys(all).length <= MAX_SYSCTLS, `at most ${MAX_SYSCTLS}`)
    .default({}),
  bootTimeoutMs,
  warm: z.boolean().optional(),
  ephemeral: z.boolean(),
});

const isolationSchema = createSchema.shape.isolation;

/** VMs to be made of a snapshot, complete. */
export const cloneSchema = z.strictObject({
  count: z.int().min(1).max(256),
  name: text(63).optional(),
  project: text(256).optional(),
  labels: createSchema.shape.labels,
  env: environment.optional(),
  user: text(256).optional(),
  workdir: absolutePath.optional(),
  policy: policySchema.optional(),
  ports: list(publishedPortSchema, 256),
  networks: list(membershipSchema, MAX_NETWORKS).optional(),
  secrets: createSchema.shape.secrets,
  timeoutMs: createSchema.shape.timeoutMs,
  onTimeout: endAction.optional(),
  idle: idleSchema.optional(),
  isolation: isolationSchema,
  ephemeral: z.boolean(),
  cold: z.boolean(),
  vcpus: z.number().optional(),
  memMib: z.number().optional(),
  diskSizeBytes: z.number().optional(),
  driver: z.enum(["firecracker", "qemu", "fake"]).optional(),
  kernel: absolutePath.optional(),
});

/** A snapshot to be taken, complete. */
export const snapshotSchema = z.strictObject({
  name: text(63).optional(),
  memory: z.boolean(),
  resume: z.boolean(),
});

const sizes = {
  diskSizeBytes: createSchema.shape.diskSizeBytes,
  memMib: createSchema.shape.memMib,
  vcpus: createSchema.shape.vcpus,
};

const saysSomething = (wishes: object): boolean => Object.keys(wishes).length > 0;
const SAYS_NOTHING = "says nothing to change";

/** The body of `POST /v1/vms/ID/update` of a gateway, whose labels are its own. */
export const sizesSchema = z.strictObject(sizes).partial().refine(saysSomething, SAYS_NOTHING);

/** The same of the daemon. */
const updateSchema = z
  .strictObject({ ...sizes, labels: createSchema.shape.labels })
  .partial()
  .refine(saysSomething, SAYS_NOTHING);

/** Another size, or other labels, for a VM. */
export function parseUpdateRequest(body: unknown): UpdateRequest {
  return withoutUndefined(validate(updateSchema, body, "change of a VM")) as UpdateRequest;
}

const volumeBytes = createSchema.shape.diskSizeBytes;

/** The body of `POST /v1/volumes`. */
export const volumeRequestSchema = z.strictObject({
  name: text(128),
  sizeBytes: volumeBytes.optional(),
  labels: createSchema.shape.labels.default({}),
  shared: z.literal(true).optional(),
});

/** The body of `POST /v1/volumes/NAME/grow`. */
export const growVolumeSchema = z.strictObject({ sizeBytes: volumeBytes });

/** The body of `POST /v1/vms/ID/snapshots`. */
export function parseSnapshotRequest(body: unknown): SnapshotRequest {
  const request = withoutUndefined(
    validate(snapshotSchema, body, "request to take a snapshot"),
  ) as SnapshotRequest;
  if (request.name !== undefined) parseName(request.name);
  return request;
}

/** The body of `POST /v1/snapshots/ID/vms` and of `POST /v1/vms/ID/fork`. */
export function parseCloneRequest(body: unknown): CloneRequest {
  const request = withoutUndefined(
    validate(cloneSchema, body, "request to make VMs of a snapshot"),
  ) as CloneRequest;
  if (request.name !== undefined) parseName(request.name);
  if (request.networks !== undefined) request.networks = checkMemberships(request.networks);
  return request;
}

/** The body of `POST /v1/vms`. */
export function parseCreateRequest(body: unknown): CreateRequest {
  const request = withoutUndefined(
    validate(createSchema, body, "request to create a VM"),
  ) as CreateRequest;
  const sources = [request.image, request.runtime, request.rootfs].filter(
    (source) => source !== undefined,
  );
  if (sources.length > 1) {
    throw new VmsanError({
      code: "ERR_VALIDATION_FLAGS",
      message: "Invalid request to create a VM: more than one of image, runtime and rootfs",
      why: "Each of them says what is on the VM's disk.",
      fix: "Give one of --from-image, --runtime and --rootfs.",
    });
  }
  if (request.name !== undefined) parseName(request.name);
  for (const mount of request.mounts) {
    mount.target = parseTarget(mount.target, mount.kind);
    if (mount.kind === "volume") parseVolumeName(mount.name);
  }
  request.mounts = checkMounts(request.mounts);
  request.networks = checkMemberships(request.networks);
  request.kernelArgs = parseKernelArgs(request.kernelArgs);
  request.sysctls = parseSysctls(Object.entries(request.sysctls).map((pair) => pair.join("=")));
  return request;
}
