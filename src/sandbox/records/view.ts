/** A VM's record as users see it: what is true now, and no internals. */
import type { VmView } from "../../model/api.ts";
import type { VmRecord } from "../../model/vm.ts";
import { viewSecrets, withPlaceholders } from "./secrets.ts";
import { isAlive } from "../../util/process-identity.ts";

/** The public view of a record. A record that says running while its process is gone is not believed. */
export function viewOf(record: VmRecord): VmView {
  const { spec, process } = record;
  const alive = process !== undefined && isAlive(process);
  const claimsToRun = record.status === "running" || record.status === "paused";
  const optional = (key: keyof VmRecord & keyof VmView): Partial<VmView> =>
    record[key] === undefined ? {} : { [key]: record[key] };
  return {
    id: record.id,
    ...optional("name"),
    status: claimsToRun && !alive ? "stopped" : record.status,
    ...optional("error"),
    createdAt: record.createdAt,
    ...optional("startedAt"),
    ...optional("timeoutAt"),
    ...optional("timeoutMs"),
    ...optional("onTimeout"),
    ...optional("idle"),
    ...optional("stopReason"),
    ...optional("image"),
    ...optional("runtime"),
    project: record.project,
    labels: record.labels,
    driver: record.driver,
    accelerator: record.accelerator,
    driverReason: record.driverReason,
    ...(alive ? { pid: process.pid } : {}),
    vcpus: spec.vcpus,
    memMib: spec.memMib,
    diskSizeBytes: record.diskSizeBytes,
    kernel: spec.kernel,
    rootfs: spec.disks[0]?.path ?? "",
    mounts: record.mounts ?? [],
    kernelArgs: spec.kernelArgs.filter((arg) => !arg.startsWith("vmsan.")),
    sysctls: record.sysctls ?? {},
    ...optional("bootTimeoutMs"),
    defaults: withPlaceholders(record),
    policy: record.policy,
    secrets: viewSecrets(record),
    ports: record.ports,
    networks: record.networks ?? [],
    ...optional("guestNetwork"),
    ...optional("networkReason"),
    ...optional("isolation"),
    ...optional("snapshot"),
    timings: record.timings,
    ephemeral: record.ephemeral,
  };
}
