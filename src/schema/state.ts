/** Stored state: the document of a VM, as an earlier version or another hand may have left it. */
import { z } from "zod";
import type { VmRecord } from "../model/vm.ts";
import { policySchema, publishedPortSchema, validate } from "./api.ts";

const processSchema = z.object({
  pid: z.int().positive(),
  startTime: z.number(),
  bootId: z.string(),
});

// What decides about processes and paths is checked field by field; the rest is only shown.
const recordSchema = z.looseObject({
  schema: z.literal(1),
  id: z.string().regex(/^vm-[0-9a-f]{8}$/),
  name: z.string().optional(),
  createdAt: z.string(),
  status: z.enum(["creating", "running", "paused", "stopped", "error"]),
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
  process: processSchema.optional(),
  ephemeral: z.boolean(),
  timings: z.record(z.string(), z.number()),
});

/** A VM's document. @throws ERR_VM_STATE */
export function parseVmRecord(value: unknown): VmRecord {
  return validate<unknown>(recordSchema, value, "record of a VM", "ERR_VM_STATE") as VmRecord;
}
