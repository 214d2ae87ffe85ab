/** What the first VM of a kind can start from, made before anybody has asked for one. */
import type { CreateRequest } from "../../model/api.ts";
import type { VmRecord } from "../../model/vm.ts";
import { newVmId } from "../../util/names.ts";
import type { Sandboxes } from "../sandboxes.ts";
import { kernelDisks, newRecord, prepareVm, setBootFiles } from "../starting/new-vm.ts";
import type { DriverChoice, Work } from "../stages.ts";
import { baseDisks } from "./make.ts";
import { isWarm, type WarmPlan } from "./warm-plan.ts";

/** Why nothing is made for such a request; undefined: there is no reason. */
export function whyNotAhead(request: CreateRequest, choice: DriverChoice): string | undefined {
  const { mounts, rootfs, init } = request;
  if (!isWarm(request, choice.accelerator)) {
    return request.warm === false ? "Warm starts are off." : "With KVM VMs boot fast enough.";
  }
  if (choice.driver.name !== "qemu") return `With ${choice.driver.name} VMs boot.`;
  if (mounts.length > 0 || rootfs !== undefined || init !== undefined) {
    return "It has mounts, a disk image or an init of its own.";
  }
  return undefined;
}

/** Give a record the disks that a VM of such a request would have. */
function withDisks({ spec }: VmRecord, plan: WarmPlan): void {
  const own = { role: plan.flat ? ("root" as const) : ("upper" as const), path: "" };
  spec.disks = [...baseDisks(plan), { ...own, readonly: false }, ...kernelDisks(spec)];
}

/** A VM of such a request as far as its machine goes; there is nothing of it. */
export async function machineAhead(
  { stages }: Sandboxes,
  request: CreateRequest,
  choice: DriverChoice,
  work: Work,
): Promise<VmRecord> {
  const record = newRecord(newVmId(), "", request, choice);
  setBootFiles(record.spec, await stages.bootFiles(record.kernelFile, work));
  withDisks(record, { base: "", flat: request.diskMode === "flat" });
  return record;
}

/** Have the disk of such a request's image built, and tell of the VM that would start from it; nothing else is left of that VM. */
export async function imageAhead(
  sandboxes: Sandboxes,
  request: CreateRequest,
  choice: DriverChoice,
  work: Work,
  wanted: (record: VmRecord, plan: WarmPlan) => Promise<void>,
): Promise<void> {
  const { stages, records } = sandboxes;
  const id = await sandboxes.claimId();
  const record = newRecord(id, records.dir(id), request, choice);
  try {
    // Should this daemon be killed, the next one removes what is still being created.
    await records.save(record);
    const base = await prepareVm(record, request, stages, work);
    const plan = { base, flat: request.diskMode === "flat" };
    withDisks(record, plan);
    await wanted(record, plan);
  } finally {
    await stages.releaseBase(id);
    await records.remove(id);
  }
}
