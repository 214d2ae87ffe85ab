/** Stored state: the document of a VM, as an earlier version or another hand may have left it. */
import * as z from "zod";
import type { SnapshotRecord, Template } from "../model/snapshot.ts";
import type { SecretMaterial } from "../model/secret.ts";
import type { VmRecord } from "../model/vm.ts";
import type { VolumeRecord } from "../model/volume.ts";
import {
  keptMountSchema,
  policySchema,
  publishedPortSchema,
  validate,
  withoutUndefined,
} from "./api.ts";

const processSchema = z.object({
  pid: z.int().positive(),
  startTime: z.number(),
  bootId: z.string(),
});

const fileName = z.string().regex(/^[a-z0-9][a-z0-9.-]{0,63}(\/[a-z0-9][a-z0-9.-]{0,63})?$/);
const storedFiles = z.array(
  z.strictObject({ name: fileName, sizeBytes: z.number(), sha256: z.string().optional() }),
);

const secretsSchema = z.strictObject({
  rules: z.array(
    z.strictObject({
      name: z.string(),
      placeholder: z.string().regex(/^vmsanSecret[0-9a-f]{40}$/),
      domains: z.array(
        z.strictObject({
          scheme: z.enum(["https", "http"]),
          host: z.string(),
          port: z.int().min(1).max(65535),
        }),
      ),
      places: z.array(z.enum(["header", "query", "body"])),
    }),
  ),
  certificate: z.string(),
  subject: z.string(),
});

const materialSchema = z.strictObject({
  values: z.record(z.string(), z.string()),
  authority: z.strictObject({ certificate: z.string(), key: z.string() }),
  trusted: z.string().optional(),
});

/** The file of a VM's secrets. @throws ERR_VM_STATE, which quotes nothing of it */
export function parseSecretMaterial(value: unknown): SecretMaterial {
  const what = "file of a VM's secrets";
  return withoutUndefined(validate(materialSchema, value, what, "ERR_VM_STATE")) as SecretMaterial;
}

// What decides about processes and paths is checked field by field; the rest is only shown.
const recordSchema = z.looseObject({
  schema: z.literal(1),
  id: z.string().regex(/^vm-[0-9a-f]{8}$/),
  name: z.string().optional(),
  createdAt: z.string(),
  status: z.enum(["creating", "running", "paused", "suspended", "stopped", "error"]),
  labels: z.record(z.string(), z.string()),
  project: z.string(),
  driver: z.enum(["firecracker", "qemu", "fake"]),
  accelerator: z.enum(["kvm", "tcg", "none"]),
  driverReason: z.string(),
  spec: z.looseObject({
    id: z.string(),
    hostId: z
      .string()
      .regex(/^[a-z0-9-]{1,60}$/)
      .optional(),
    dir: z.string(),
    vcpus: z.number(),
    memMib: z.number(),
    kernel: z.string(),
    initramfs: z.string(),
    kernelArgs: z.array(z.string()),
    disks: z.array(z.looseObject({ role: z.string(), path: z.string(), readonly: z.boolean() })),
  }),
  diskSizeBytes: z.number(),
  defaults: z.looseObject({ env: z.array(z.string()) }),
  policy: policySchema,
  ports: z.array(publishedPortSchema),
  mounts: z.array(keptMountSchema).optional(),
  networks: z
    .array(
      z.looseObject({
        network: z.string(),
        subnet: z.cidrv4(),
        address: z.ipv4(),
        aliases: z.array(z.string()),
      }),
    )
    .optional(),
  secrets: secretsSchema.optional(),
  process: processSchema.optional(),
  ephemeral: z.boolean(),
  suspended: z
    .looseObject({ dir: z.string().regex(/^memory-[0-9a-f]{8}$/), files: storedFiles })
    .optional(),
  timings: z.record(z.string(), z.number()),
});

/** A VM's document. @throws ERR_VM_STATE */
export function parseVmRecord(value: unknown): VmRecord {
  return validate<unknown>(recordSchema, value, "record of a VM", "ERR_VM_STATE") as VmRecord;
}

const volumeSchema = z.looseObject({
  schema: z.literal(1),
  name: z.string().max(128),
  createdAt: z.string().max(64),
  labels: z.record(z.string().max(256), z.string().max(4096)),
  fsLabel: z.string().regex(/^(?:vmsan-v[0-9a-f]{9})?$/),
  shared: z.literal(true).optional(),
  sizeBytes: z.int().positive().optional(),
});

/** A volume's document. @throws ERR_VOLUME_STATE */
export function parseVolumeRecord(value: unknown): VolumeRecord {
  const what = "record of a volume";
  return validate<unknown>(volumeSchema, value, what, "ERR_VOLUME_STATE") as VolumeRecord;
}

const machineSchema = z.looseObject({
  vmm: z.string(),
  accelerator: z.enum(["kvm", "tcg", "none"]),
  cpu: z.string(),
  tscKhz: z.number().optional(),
});

/** Which volume a disk of a snapshot is of. */
const diskVolume = z.looseObject({
  name: z.string(),
  label: z.string(),
  copy: z.literal(true).optional(),
  stamp: z.string().optional(),
});

const snapshotSchema = z.looseObject({
  schema: z.literal(1),
  id: z.string().regex(/^snap-[0-9a-f]{8}$/),
  name: z.string().optional(),
  createdAt: z.string(),
  memory: z.boolean(),
  driver: z.enum(["firecracker", "qemu", "fake"]),
  machine: machineSchema,
  kernel: z.looseObject({ path: z.string(), file: z.string().optional() }),
  initramfs: z.string(),
  kernelArgs: z.array(z.string()),
  vcpus: z.int().min(1),
  memMib: z.int().min(1),
  diskSizeBytes: z.number(),
  card: z.boolean(),
  disks: z.array(
    z.union([
      z.looseObject({
        role: z.enum(["base", "upper", "root", "data", "modules"]),
        path: z.union([z.string().startsWith("/"), fileName]),
        readonly: z.literal(true),
        // What is only read has one layer: others would be opened wherever they lie.
        backing: z.undefined().optional(),
        volume: diskVolume.optional(),
      }),
      z.looseObject({
        role: z.enum(["base", "upper", "root", "data", "modules"]),
        path: fileName,
        readonly: z.literal(false),
        backing: z.array(fileName).optional(),
        volume: diskVolume.optional(),
      }),
    ]),
  ),
  defaults: z.looseObject({ env: z.array(z.string()) }),
  policy: policySchema,
  mounts: z.array(keptMountSchema).optional(),
  networks: z.array(z.string()).optional(),
  files: storedFiles,
  pauseMs: z.number(),
});

const templateSchema = z.looseObject({
  disk: z
    .looseObject({
      role: z.enum(["upper", "root"]),
      path: fileName,
      readonly: z.literal(false),
    })
    .optional(),
  files: storedFiles,
  stamp: z.string(),
  needs: z.array(z.string()),
  machine: machineSchema,
  slot: z.string(),
});

/** A template's document. @throws ERR_TEMPLATE_STATE */
export function parseTemplate(value: unknown): Template {
  const code = "ERR_TEMPLATE_STATE";
  return validate<unknown>(templateSchema, value, "record of a template", code) as Template;
}

/** A snapshot's document. @throws ERR_SNAPSHOT_STATE */
export function parseSnapshotRecord(value: unknown): SnapshotRecord {
  const code = "ERR_SNAPSHOT_STATE";
  return validate<unknown>(snapshotSchema, value, "record of a snapshot", code) as SnapshotRecord;
}
