/** VMs whose record cannot be read: shown, refused for everything else, and removed by force. */
import { VmsanError, messageOf } from "../../model/errors.ts";
import type { DriverName, VmSpec } from "../../model/vm.ts";
import type { BrokenRecord, VmRecords } from "./records.ts";
import type { Stages } from "../stages.ts";

/** What any call but a forced removal is told. */
export function damaged({ id, why }: BrokenRecord): VmsanError {
  return new VmsanError({
    code: "ERR_VM_STATE",
    message: `The record of ${id} cannot be read`,
    why,
    fix: `Put its vm.json back from a backup and restart the daemon, or remove the VM with its disk: vmsan rm -f ${id}`,
  });
}

const DRIVERS: readonly DriverName[] = ["qemu", "firecracker", "fake"];

/**
 * Remove all that a VM has on this host, although nobody knows any more what runs it: each driver
 * looks for what would be its own.
 * @returns what could not be cleaned
 */
export async function removeDamaged(
  id: string,
  records: VmRecords,
  stages: Stages,
): Promise<{ what: string; why: string }[]> {
  const failed: { what: string; why: string }[] = [];
  const spec: VmSpec = {
    id,
    dir: records.dir(id),
    vcpus: 1,
    memMib: 0,
    kernel: "",
    initramfs: "",
    kernelArgs: [],
    disks: [],
    isolation: { seccomp: true, pidNamespace: true, cgroup: true, networkNamespace: true },
  };
  const attempt = async (what: string, body: () => Promise<unknown>): Promise<void> => {
    try {
      await body();
    } catch (error) {
      failed.push({ what, why: messageOf(error) });
    }
  };
  for (const name of DRIVERS) {
    await attempt(`clean up after ${name}`, async () => {
      failed.push(...(await stages.driver(name).cleanup(spec)).failed);
    });
  }
  await attempt("remove the network", async () => {
    failed.push(...(await stages.networks.detach(id)).failed);
  });
  await attempt("release its image", () => stages.releaseBase(id));
  await records.remove(id);
  return failed;
}
