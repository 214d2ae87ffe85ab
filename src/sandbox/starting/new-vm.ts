/** A VM before it runs: its record from a request, then its disks and boot files. */
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import type { CreateRequest } from "../../model/api.ts";
import type { DiskAttachment, VmRecord, VmSpec } from "../../model/vm.ts";
import { together } from "../../util/flow/together.ts";
import { servedOf } from "./mounts.ts";
import type { BootFiles, DriverChoice, PreparedBase, Stages, Work } from "../stages.ts";

/** Kernel arguments that say how the agent sets up the root; nothing secret. */
function kernelArgs(request: CreateRequest): string[] {
  const args = [`vmsan.root=${request.diskMode}`];
  if (request.init !== undefined) args.push(`vmsan.init=${request.init}`);
  return [...args, ...request.kernelArgs];
}

/**
 * The record of a VM that is about to be made.
 * @param dir absolute path of the VM's own directory
 */
export function newRecord(
  id: string,
  dir: string,
  request: CreateRequest,
  choice: DriverChoice,
): VmRecord {
  const { name, kernel, user, workdir, timeoutMs } = request;
  return {
    schema: 1,
    id,
    ...(name === undefined ? {} : { name }),
    createdAt: new Date().toISOString(),
    status: "creating",
    labels: request.labels,
    project: request.project,
    driver: choice.driver.name,
    accelerator: choice.accelerator,
    driverReason: choice.reason,
    ...(kernel === undefined ? {} : { kernelFile: kernel }),
    spec: {
      id,
      dir,
      vcpus: request.vcpus,
      memMib: request.memMib,
      kernel: "",
      initramfs: "",
      kernelArgs: kernelArgs(request),
      disks: [],
      ...(servedOf(request).length > 0 && { shares: true }),
      isolation: request.isolation,
    },
    diskSizeBytes: request.diskSizeBytes,
    ...(request.mounts.length > 0 && { mounts: request.mounts }),
    ...(Object.keys(request.sysctls).length > 0 && { sysctls: request.sysctls }),
    ...(request.warm === undefined ? {} : { warm: request.warm }),
    ...(request.bootTimeoutMs === undefined ? {} : { bootTimeoutMs: request.bootTimeoutMs }),
    defaults: {
      env: request.env,
      ...(user === undefined ? {} : { user }),
      ...(workdir === undefined ? {} : { workdir }),
    },
    policy: request.policy,
    ports: request.ports,
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
    ...(request.onTimeout && { onTimeout: request.onTimeout }),
    ...(request.idle && { idle: request.idle }),
    ephemeral: request.ephemeral,
    machineId: randomBytes(16).toString("hex"),
    timings: {},
  };
}

/** Give a VM what it boots, before its first start and before every other one. */
export function setBootFiles(spec: VmSpec, boot: BootFiles): void {
  spec.kernel = boot.kernel;
  spec.initramfs = boot.initramfs;
  spec.disks = spec.disks.filter(({ role }) => role !== "modules");
  if (boot.modulesDisk !== undefined) {
    spec.disks.push({ role: "modules", path: boot.modulesDisk, readonly: true });
  }
}

/** The disks of a VM's kernel, which come last. */
export function kernelDisks(spec: VmSpec): DiskAttachment[] {
  return spec.disks.filter(({ role }) => role === "modules");
}

/**
 * Disk image and boot files for a new VM, noted in its record.
 * @returns absolute path of the disk image
 */
export async function prepareVm(
  record: VmRecord,
  request: CreateRequest,
  stages: Stages,
  work: Work,
): Promise<string> {
  const [prepared, boot] = await together<[PreparedBase, BootFiles]>(
    work.signal,
    (signal) => stages.prepareBase(request, record.id, { ...work, signal }),
    (signal) => stages.bootFiles(record.kernelFile, { ...work, signal }),
  );
  if (prepared.image !== undefined) record.image = prepared.image;
  if (prepared.runtime !== undefined) record.runtime = prepared.runtime;
  setBootFiles(record.spec, boot);
  return prepared.rootfs;
}

/** The VM's own disk, new, between the shared one and its kernel's. */
export async function makeDisks(
  record: VmRecord,
  base: string,
  flat: boolean,
  stages: Stages,
  work: Work,
): Promise<void> {
  const { spec } = record;
  const last = kernelDisks(spec);
  if (flat) {
    const root = join(spec.dir, "root.ext4");
    await stages.cloneRoot(base, root, record.diskSizeBytes, work.signal);
    spec.disks = [{ role: "root", path: root, readonly: false }, ...last];
    return;
  }
  const upper = join(spec.dir, "upper.ext4");
  await stages.createUpper(upper, record.diskSizeBytes);
  spec.disks = [
    { role: "base", path: base, readonly: true },
    { role: "upper", path: upper, readonly: false },
    ...last,
  ];
}
