/** Snapshots and VM records: one made of the other. */
import { randomBytes } from "node:crypto";
import type { CloneRequest, SnapshotView } from "../../model/api.ts";
import { VmsanError } from "../../model/errors.ts";
import type { NetworkPolicy } from "../../model/policy.ts";
import type { MembershipRequest } from "../../model/private-network.ts";
import type { SnapshotRecord, SnapshotSizes } from "../../model/snapshot.ts";
import type { VmRecord, MachineIdentity } from "../../model/vm.ts";
import { servedOf } from "../starting/mounts.ts";
import { keptMounts } from "./outside.ts";

/** Share of its rate by which a time stamp counter may differ: what measuring it leaves open. */
const TSC_SLACK = 0.001;

/** What a snapshot says of a VM, but for what was taken. */
export function describeVm(
  record: VmRecord,
  machine: MachineIdentity,
  about: { id: string; name?: string; memory: boolean },
): Omit<SnapshotRecord, "files" | "disks" | "pauseMs"> {
  const { spec, image, runtime, kernelFile, snapshot } = record;
  return {
    schema: 1,
    ...about,
    createdAt: new Date().toISOString(),
    ...(snapshot === undefined ? {} : { parent: snapshot }),
    vm: { id: record.id, ...(record.name === undefined ? {} : { name: record.name }) },
    project: record.project,
    ...(image === undefined ? {} : { image }),
    ...(runtime === undefined ? {} : { runtime }),
    driver: record.driver,
    machine,
    kernel: { path: spec.kernel, ...(kernelFile === undefined ? {} : { file: kernelFile }) },
    initramfs: spec.initramfs,
    kernelArgs: spec.kernelArgs,
    vcpus: spec.vcpus,
    memMib: spec.memMib,
    diskSizeBytes: record.diskSizeBytes,
    ...keptMounts(record, about.memory),
    ...(record.sysctls === undefined ? {} : { sysctls: record.sysctls }),
    ...(record.bootTimeoutMs === undefined ? {} : { bootTimeoutMs: record.bootTimeoutMs }),
    card: spec.network !== undefined,
    defaults: record.defaults,
    policy: record.policy,
    ...(record.networks === undefined
      ? {}
      : { networks: record.networks.map(({ network }) => network) }),
  };
}

/**
 * Private networks of a VM that is made from a snapshot: the snapshot's, unless others are asked
 * for. It has addresses of its own there; its source's aliases stay its source's.
 */
export function networksOf(
  from: Pick<SnapshotRecord, "networks">,
  { networks, policy }: CloneRequest,
): MembershipRequest[] {
  if (networks !== undefined) return networks;
  if (policy?.mode === "none") return [];
  return (from.networks ?? []).map((network) => ({ network, aliases: [] }));
}

/** A snapshot as users see it. */
export function viewOfSnapshot(
  record: SnapshotRecord,
  sizes: SnapshotSizes,
  usedBy: string[],
): SnapshotView {
  const { image, name, parent, runtime } = record;
  return {
    id: record.id,
    ...(name === undefined ? {} : { name }),
    createdAt: record.createdAt,
    ...(parent === undefined ? {} : { parent }),
    vm: record.vm,
    ...(record.project === undefined ? {} : { project: record.project }),
    memory: record.memory,
    ...(image === undefined ? {} : { image: { name: image.name, digest: image.digest } }),
    ...(runtime === undefined ? {} : { runtime }),
    driver: record.driver,
    machine: record.machine,
    kernel: record.kernel.path,
    vcpus: record.vcpus,
    memMib: record.memMib,
    diskSizeBytes: record.diskSizeBytes,
    policy: record.policy,
    ...(record.networks === undefined ? {} : { networks: record.networks }),
    sizes,
    pauseMs: record.pauseMs,
    usedBy,
  };
}

/** The first record of a VM that is made from a snapshot; its disks are not there yet. */
export function cloneRecord(
  id: string,
  dir: string,
  name: string | undefined,
  from: SnapshotRecord,
  request: CloneRequest,
  reason: string,
): VmRecord {
  const user = request.user ?? from.defaults.user;
  const workdir = request.workdir ?? from.defaults.workdir;
  const { image, runtime } = from;
  return {
    schema: 1,
    id,
    ...(name === undefined ? {} : { name }),
    createdAt: new Date().toISOString(),
    status: "creating",
    ...(image === undefined ? {} : { image }),
    ...(runtime === undefined ? {} : { runtime }),
    labels: request.labels,
    project: request.project ?? "",
    driver: from.driver,
    accelerator: from.machine.accelerator,
    driverReason: reason,
    ...(from.kernel.file === undefined ? {} : { kernelFile: from.kernel.file }),
    spec: {
      id,
      dir,
      vcpus: from.vcpus,
      memMib: from.memMib,
      kernel: from.kernel.path,
      initramfs: from.initramfs,
      kernelArgs: from.kernelArgs,
      disks: [],
      ...(servedOf(from).length > 0 && { shares: true }),
      isolation: request.isolation,
    },
    diskSizeBytes: from.diskSizeBytes,
    ...(from.mounts === undefined ? {} : { mounts: from.mounts }),
    ...(from.sysctls === undefined ? {} : { sysctls: from.sysctls }),
    ...(from.bootTimeoutMs === undefined ? {} : { bootTimeoutMs: from.bootTimeoutMs }),
    defaults: {
      env: request.env ?? from.defaults.env,
      ...(user === undefined ? {} : { user }),
      ...(workdir === undefined ? {} : { workdir }),
    },
    // A machine without a card cannot get one by itself.
    policy: request.policy ?? (from.card || request.cold ? from.policy : noCard(from.policy)),
    ports: request.ports,
    ...(request.timeoutMs === undefined ? {} : { timeoutMs: request.timeoutMs }),
    ...(request.onTimeout && { onTimeout: request.onTimeout }),
    ...(request.idle && { idle: request.idle }),
    ephemeral: request.ephemeral,
    machineId: randomBytes(16).toString("hex"),
    ...(from.id === "" ? {} : { snapshot: from.id }),
    timings: {},
  };
}

/** The policy of a VM without a card. */
function noCard(policy: NetworkPolicy): NetworkPolicy {
  return { ...policy, mode: "none" };
}

/** What a clone may ask for and a snapshot has. */
type Fixed = string | number | boolean | undefined;

/** Refuse to change what a snapshot has fixed. @throws ERR_SNAPSHOT_FIXED */
export function checkFixed(from: SnapshotRecord, request: CloneRequest): void {
  const fixed: [what: string, wanted: Fixed, has: Fixed, why: string][] = [
    ["processors", request.vcpus, from.vcpus, "they are part of the machine's state"],
    ["MiB of memory", request.memMib, from.memMib, "the memory was saved as it is"],
    ["bytes of disk", request.diskSizeBytes, from.diskSizeBytes, "the guest has it mounted"],
    ["driver", request.driver, from.driver, "another VMM cannot read the state"],
    ["kernel", request.kernel, from.kernel.file, "it is running in the snapshot"],
  ];
  if (from.memory && !request.cold && request.policy !== undefined) {
    const card = request.policy.mode !== "none";
    fixed.push(["network card", card, from.card, "cards are part of the machine"]);
  }
  for (const [what, wanted, has, why] of fixed) {
    if (wanted === undefined || wanted === has) continue;
    throw new VmsanError({
      code: "ERR_SNAPSHOT_FIXED",
      message: `Cannot make a VM of snapshot ${from.id} with another ${what}: ${String(wanted)}`,
      why: `The snapshot's is ${String(has)}, and ${why}.`,
      fix: "Leave that out, or create a VM from the image.",
    });
  }
}

/** Refuse memory that this machine cannot load. @throws ERR_SNAPSHOT_INCOMPATIBLE */
export function checkMachine(
  what: string,
  had: MachineIdentity,
  now: MachineIdentity,
  fix: string,
): void {
  const differ = (name: string, was: unknown, is: unknown): string =>
    `${name} was ${String(was)} and is ${String(is)} here.`;
  let why: string | undefined;
  if (had.vmm !== now.vmm) why = differ("The VMM", had.vmm, now.vmm);
  else if (had.accelerator !== now.accelerator) {
    why = differ("The accelerator", had.accelerator, now.accelerator);
  } else if (had.cpu !== now.cpu) why = differ("The processor", had.cpu, now.cpu);
  else if (had.tscKhz !== undefined && now.tscKhz !== undefined) {
    const off = Math.abs(had.tscKhz - now.tscKhz) / had.tscKhz;
    if (off > TSC_SLACK) why = differ("The counter's rate in kHz", had.tscKhz, now.tscKhz);
  }
  if (why === undefined) return;
  throw new VmsanError({
    code: "ERR_SNAPSHOT_INCOMPATIBLE",
    message: `Cannot load the memory of ${what} on this machine`,
    why: `${why} A memory image fits the machine that wrote it.`,
    fix,
  });
}
