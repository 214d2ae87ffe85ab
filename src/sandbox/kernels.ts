/** Guest kernels as the API shows them: joined with the VMs that boot them. */
import { stat } from "node:fs/promises";
import {
  addKernel,
  hostArch,
  listKernels,
  removeKernel,
  selectKernel,
  selectedKernelId,
  storedKernel,
  type Kernel,
} from "../boot/kernel.ts";
import type { ResourceUser } from "../model/api.ts";
import type { KernelList, KernelRequest, KernelView } from "../model/api/kernels.ts";
import { VmsanError } from "../model/errors.ts";

/** Names of the VMs and snapshots that need a kernel: both know the path. */
function usersOf(kernel: Kernel, vms: readonly ResourceUser[]): string[] {
  return vms.filter((vm) => vm.kernel === kernel.vmlinux).map((vm) => vm.name ?? vm.id);
}

/** A kernel as the API shows it. */
async function viewOf(
  dir: string,
  kernel: Kernel,
  vms: readonly ResourceUser[],
): Promise<KernelView> {
  return {
    id: kernel.id,
    version: kernel.version,
    arch: kernel.arch,
    origin: kernel.origin,
    source: kernel.source,
    modules: kernel.modules.length,
    modulesDisk: kernel.modulesDisk !== undefined,
    sizeBytes: (await stat(kernel.vmlinux)).size,
    addedAt: kernel.addedAt,
    current: kernel.id === (await storedKernel(dir, hostArch()))?.id,
    usedBy: usersOf(kernel, vms),
  };
}

/**
 * All kernels of a store.
 * @param dir the store
 * @param vms all VMs and snapshots
 */
export async function kernelList(dir: string, vms: readonly ResourceUser[]): Promise<KernelList> {
  const kernels: KernelView[] = [];
  for (const kernel of await listKernels(dir)) kernels.push(await viewOf(dir, kernel, vms));
  return { kernels, chosen: (await selectedKernelId(dir)) ?? "default" };
}

/** Add a kernel of the user's. @throws ERR_KERNEL_FORMAT, _FEATURE, _UNPACK, _STORE */
export async function keepKernel(
  dir: string,
  request: KernelRequest,
  vms: readonly ResourceUser[],
  signal: AbortSignal,
): Promise<KernelView> {
  return await viewOf(dir, await addKernel({ dir, ...request, signal }), vms);
}

/** Choose the kernel of new VMs; `default` leaves it to vmsan. @throws ERR_KERNEL_NOT_FOUND */
export async function chooseKernel(
  dir: string,
  id: string,
  vms: readonly ResourceUser[],
): Promise<KernelList> {
  await selectKernel(dir, id);
  return await kernelList(dir, vms);
}

/** Remove a kernel that no VM boots. @throws ERR_KERNEL_NOT_FOUND, ERR_KERNEL_IN_USE */
export async function dropKernel(
  dir: string,
  id: string,
  vms: readonly ResourceUser[],
): Promise<void> {
  const kernel = (await listKernels(dir)).find((one) => one.id === id);
  const users = kernel === undefined ? [] : usersOf(kernel, vms);
  if (users.length > 0) {
    throw new VmsanError({
      code: "ERR_KERNEL_IN_USE",
      message: `Cannot remove the kernel ${id}`,
      why: `These VMs and snapshots need it: ${users.join(", ")}.`,
      fix: "Remove them first.",
    });
  }
  await removeKernel(dir, id);
}
