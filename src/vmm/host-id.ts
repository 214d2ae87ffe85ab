/** What a VM is called on the host, where VMs of all installations meet. */
import type { VmSpec } from "../model/vm.ts";

/** Name of a VM's control group, jail and claim of a user id: its ID, but for copies of a VM. */
export function hostIdOf(spec: VmSpec): string {
  return spec.hostId ?? spec.id;
}
