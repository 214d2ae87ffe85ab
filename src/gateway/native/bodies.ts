/**
 * native/: vmsan's own HTTP API for programs on other machines: the daemon's calls as far as they make
 * sense there, kept to the caller's project, and three that need no SDK (exec, files). Takes requests
 * with API keys; one table of routes serves them and writes the OpenAPI document.
 *
 * bodies.ts: what requests may say, and what remote callers may not.
 */
import * as z from "zod";
import type { CloneRequest, CreateRequest } from "../../model/api.ts";
import { VmsanError } from "../../model/errors.ts";
import { isHostSource } from "../../client/options.ts";
import {
  cloneSchema,
  createSchema,
  policySchema,
  snapshotSchema,
  validate,
  withoutUndefined,
} from "../../schema/api.ts";
import type { Caller } from "../access/gate.ts";
import { KEY_LABEL } from "../access/limits.ts";
import { PUBLIC_LABEL } from "../ports/access.ts";

const policy = z.strictObject({
  mode: policySchema.shape.mode.default("allow-all"),
  allowedDomains: policySchema.shape.allowedDomains.default([]),
  allowedCidrs: policySchema.shape.allowedCidrs.default([]),
  deniedCidrs: policySchema.shape.deniedCidrs.default([]),
  allowedPorts: policySchema.shape.allowedPorts,
  allowHostPorts: policySchema.shape.allowHostPorts.default([]),
  allowIcmp: policySchema.shape.allowIcmp.default(false),
  allowUdp: policySchema.shape.allowUdp.default(false),
  bandwidthMbit: policySchema.shape.bandwidthMbit,
});

/** A network policy with what is left out filled in. */
export const remotePolicySchema = policy;

const isolation = createSchema.shape.isolation;

/** A VM as remote callers ask for it: only what differs from the defaults must be said. */
export const remoteCreateSchema = createSchema.extend({
  vcpus: createSchema.shape.vcpus.default(1),
  memMib: createSchema.shape.memMib.default(512),
  diskSizeBytes: createSchema.shape.diskSizeBytes.default(10 * 2 ** 30),
  diskMode: createSchema.shape.diskMode.default("overlay"),
  project: createSchema.shape.project.default(""),
  labels: createSchema.shape.labels.default({}),
  driver: createSchema.shape.driver.default("auto"),
  env: createSchema.shape.env.default([]),
  policy: policy.prefault({}),
  ports: createSchema.shape.ports.default([]),
  isolation: isolation.default({
    seccomp: true,
    pidNamespace: true,
    cgroup: true,
    networkNamespace: true,
  }),
  pull: createSchema.shape.pull.default("missing"),
  ephemeral: createSchema.shape.ephemeral.default(false),
});

/** VMs of a snapshot or of another VM, as remote callers ask for them. */
export const remoteCloneSchema = cloneSchema.extend({
  count: cloneSchema.shape.count.default(1),
  labels: cloneSchema.shape.labels.default({}),
  policy: policy.optional(),
  ports: cloneSchema.shape.ports.default([]),
  isolation: remoteCreateSchema.shape.isolation,
  ephemeral: cloneSchema.shape.ephemeral.default(false),
  cold: cloneSchema.shape.cold.default(false),
});

/** A snapshot as remote callers ask for it. */
export const remoteSnapshotSchema = snapshotSchema.extend({
  memory: snapshotSchema.shape.memory.default(true),
  resume: snapshotSchema.shape.resume.default(true),
});

/** A command to run to its end. */
export const execSchema = z.strictObject({
  argv: z.array(z.string().max(131_072)).min(1).max(10_000),
  env: createSchema.shape.env.optional(),
  workdir: createSchema.shape.workdir,
  user: createSchema.shape.user,
  /** Standard input. */
  input: z
    .string()
    .max(1 << 20)
    .optional(),
  timeoutMs: z.int().min(1).max(86_400_000).optional(),
});

/** What a finished command gave. */
export const execResultSchema = z.strictObject({
  exitCode: z.int(),
  signal: z.string().optional(),
  timedOut: z.boolean(),
  /** UTF-8; bytes that are none are replaced. */
  stdout: z.string(),
  stderr: z.string(),
});

/** The driver of VMs whose maker names none. */
export type GatewayDriver = CreateRequest["driver"];

/** Refuse what only the host's own user may ask for. */
function forbidden(what: string, why: string, fix: string): VmsanError {
  return new VmsanError({
    code: "ERR_GATEWAY_FORBIDDEN",
    message: `Not through this key: ${what}`,
    why,
    fix,
  });
}

/** Refuse a network policy that opens the host. @throws ERR_GATEWAY_FORBIDDEN */
export function checkPolicy(caller: Caller, wanted: { allowHostPorts: readonly number[] }): void {
  if (caller.key.admin || wanted.allowHostPorts.length === 0) return;
  throw forbidden(
    "allowHostPorts",
    "It would let the guest reach the host.",
    "Leave it out, or use an admin key.",
  );
}

/** Refuse image sources that are files or engines of the host. @throws ERR_GATEWAY_FORBIDDEN */
export function checkImage(image: string): void {
  if (!isHostSource(image)) return;
  throw forbidden(
    `image ${JSON.stringify(image.slice(0, 200))}`,
    "It names something of the host's own.",
    "Name an image of a registry.",
  );
}

/** Refuse what no key, or no project's key, may ask for of any new VM. @throws ERR_GATEWAY_FORBIDDEN */
function checkWishes(
  { key }: Caller,
  wanted: Pick<CreateRequest, "ports" | "isolation" | "labels"> & { project?: string | undefined },
): void {
  const reserved = Object.keys(wanted.labels).find(
    (label) => label.startsWith("vmsan.") && label !== PUBLIC_LABEL,
  );
  if (reserved !== undefined) {
    throw forbidden(
      `label ${reserved}`,
      "Labels that begin with vmsan. are the gateway's.",
      "Choose another name.",
    );
  }
  if (key.admin) return;
  if (wanted.ports.length > 0) {
    throw forbidden(
      "ports",
      "They would be opened on the host.",
      "Reach ports of the guest by PORT-VM.DOMAIN or the headers vmsan-vm and vmsan-port.",
    );
  }
  if (Object.values(wanted.isolation).includes(false)) {
    throw forbidden("isolation", "No part of it may be switched off.", "Leave it out.");
  }
  const { project = "" } = wanted;
  if (project !== "" && project !== key.project) {
    throw forbidden(`project ${project}`, `The key belongs to ${key.project}.`, "Leave it out.");
  }
}

/** Project and labels of a VM that a caller makes. */
function ownership(
  { key }: Caller,
  wanted: { labels: Record<string, string>; project?: string | undefined },
): { project: string; labels: Record<string, string> } {
  const { project = "", labels } = wanted;
  return {
    project: key.admin && project !== "" ? project : key.project,
    labels: { ...labels, [KEY_LABEL]: key.id },
  };
}

/**
 * The daemon's request for VMs that a remote caller wants of a snapshot or of another VM.
 * @throws ERR_VALIDATION_*, ERR_GATEWAY_FORBIDDEN
 */
export function remoteCloneRequest(caller: Caller, body: unknown): CloneRequest {
  const parsed = validate(remoteCloneSchema, body, "request to make VMs of a snapshot");
  if (parsed.kernel !== undefined) {
    throw forbidden(
      `kernel ${JSON.stringify(parsed.kernel)}`,
      "It names something of the host's own.",
      "Leave it out.",
    );
  }
  checkWishes(caller, parsed);
  if (parsed.policy !== undefined) checkPolicy(caller, parsed.policy);
  const { policy: wanted, ...rest } = withoutUndefined(parsed);
  return {
    ...rest,
    ...(wanted === undefined ? {} : { policy: withoutUndefined(wanted) }),
    ...ownership(caller, parsed),
  } as CloneRequest;
}

/**
 * The daemon's request for a remote caller's body: its project, its key's label, nothing that names
 * files of the host.
 * @throws ERR_VALIDATION_*, ERR_GATEWAY_FORBIDDEN
 */
export function remoteCreateRequest(
  caller: Caller,
  body: unknown,
  driver: GatewayDriver = "auto",
): CreateRequest {
  const parsed = validate(remoteCreateSchema, body, "request to create a VM");
  const { key } = caller;
  const hostFile = [
    ["rootfs", parsed.rootfs],
    ["kernel", parsed.kernel],
    ["registry.caFile", parsed.registry?.caFile],
    ["mount of", parsed.mounts.find((mount) => mount.kind === "bind")?.source],
  ].find(([, value]) => value !== undefined);
  if (hostFile !== undefined) {
    throw forbidden(
      `${hostFile[0]} ${JSON.stringify(hostFile[1])}`,
      "It names something of the host's own.",
      "Name an image of a registry, or a runtime.",
    );
  }
  if (parsed.image !== undefined) checkImage(parsed.image);
  if (!key.admin) {
    const volume = parsed.mounts.find((mount) => mount.kind === "volume");
    if (volume !== undefined) {
      throw forbidden(
        `volume ${volume.name}`,
        "Volumes belong to the host, not to a project.",
        "Use a place on the VM's own disk, or an admin key.",
      );
    }
  }
  checkWishes(caller, parsed);
  checkPolicy(caller, parsed.policy);
  if (parsed.driver === "fake" && driver !== "fake") {
    throw forbidden("driver fake", "It runs commands on the host itself.", "Choose another.");
  }
  // How registries are reached, and what the host can do, is the host's affair: what holds for the
  // caller's machine means nothing here.
  const { registry: _, host: _host, ...request } = withoutUndefined(parsed);
  return {
    ...request,
    driver: parsed.driver === "auto" ? driver : parsed.driver,
    ...ownership(caller, parsed),
  } as CreateRequest;
}
