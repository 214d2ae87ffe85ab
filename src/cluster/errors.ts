/** What goes wrong with VMs that are pods, as the daemon says it of its own. */
import { VmsanError } from "../model/errors.ts";

/** There is no such pod. */
export function vmNotFound(ref: string, cause?: unknown): VmsanError {
  return new VmsanError(
    {
      code: "ERR_VM_NOT_FOUND",
      message: `There is no VM ${ref}`,
      why: "No pod of the namespace that asks for a host of vmsan has this ID or name.",
      fix: "See what there is: vmsan --cluster list; another namespace: --namespace.",
    },
    cause,
  );
}

/** The VM does not run. */
export function notRunning(ref: string, status: string): VmsanError {
  return new VmsanError({
    code: "ERR_VM_NOT_RUNNING",
    message: `The VM ${ref} does not run`,
    why: `It is ${status}.`,
    fix: "Make another one: pods that have ended do not start again.",
  });
}

/** The VM runs. */
export function notStopped(ref: string): VmsanError {
  return new VmsanError({
    code: "ERR_VM_NOT_STOPPED",
    message: `Cannot remove ${ref}`,
    why: "It is running.",
    fix: `Stop it first, or remove it as it is: vmsan --cluster rm -f ${ref}`,
  });
}
