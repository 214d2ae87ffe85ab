/** What the commands' JSON replies say of a VM: the reference's fields and ours. */
import type { VmList, VmView } from "../model/api.ts";

const GIB = 2 ** 30;

/** The reply of `create`. */
export function createReply(view: VmView): Record<string, unknown> {
  return {
    vmId: view.id,
    name: view.name ?? null,
    vcpus: view.vcpus,
    memMib: view.memMib,
    runtime: view.runtime ?? null,
    image: view.image === undefined ? null : { name: view.image.name, digest: view.image.digest },
    networkPolicy: view.policy.mode,
    guestIp: guestIp(view),
    pid: view.pid ?? null,
    kernel: view.kernel,
    rootfs: view.rootfs,
    diskSizeGb: view.diskSizeBytes / GIB,
    driver: view.driver,
    accelerator: view.accelerator,
    driverReason: view.driverReason,
    timings: view.timings,
  };
}

/** A VM in the reply of `list`. */
export function listEntry(view: VmView): Record<string, unknown> {
  return {
    id: view.id,
    name: view.name ?? null,
    status: view.status,
    createdAt: view.createdAt,
    memSizeMib: view.memMib,
    vcpuCount: view.vcpus,
    runtime: view.runtime ?? null,
    image: view.image?.name ?? null,
    driver: view.driver,
    timeoutAt: view.timeoutAt ?? null,
    ports: view.ports,
    snapshot: view.snapshot ?? null,
    tunnelHostnames: [],
  };
}

/** A VM whose record cannot be read, in the reply of `list`. */
export function damagedEntry({ id, why }: VmList["damaged"][number]): Record<string, unknown> {
  return { id, name: null, status: "error", error: { code: "ERR_VM_STATE", why } };
}

/** The guest's IPv4 address without its prefix length. */
export function guestIp(view: VmView): string | null {
  return view.guestNetwork?.ipv4?.split("/")[0] ?? null;
}
