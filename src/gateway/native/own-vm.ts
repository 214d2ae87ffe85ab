/** VMs as a key sees them. */
import { basename } from "node:path";
import type { Vm } from "../../client/vm.ts";
import type { Vmsan } from "../../client/vmsan.ts";
import type { VmView } from "../../model/api.ts";
import { VmsanError } from "../../model/errors.ts";
import { sees } from "../access/gate.ts";
import type { Caller } from "../access/gate.ts";
import { KEY_LABEL } from "../access/limits.ts";
import type { RouteContext } from "./route.ts";

/** A VM that the caller may see. @throws ERR_VM_NOT_FOUND, also for those of other projects */
export async function ownVm(vmsan: Vmsan, caller: Caller, ref: string): Promise<Vm> {
  const vm = await vmsan.get(ref);
  if (sees(caller, vm.view)) return vm;
  throw new VmsanError({
    code: "ERR_VM_NOT_FOUND",
    message: `There is no VM ${ref}`,
    why: "No VM has this ID or name.",
    fix: "See the list of VMs.",
  });
}

/** The VM that a request's path names. @throws ERR_VM_NOT_FOUND, also for those of other projects */
export async function vmOf({ c, caller, vmsan }: RouteContext): Promise<Vm> {
  return await ownVm(vmsan, caller, c.req.param("vm") ?? "");
}

/** A VM as remote callers see it: without paths and processes of the host. */
export function remoteView(view: VmView): VmView {
  const { [KEY_LABEL]: _key, ...labels } = view.labels;
  const { pid: _pid, ...shown } = view;
  return { ...shown, labels, kernel: basename(view.kernel), rootfs: basename(view.rootfs) };
}
