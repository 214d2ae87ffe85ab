/** What the composer refuses, in words. */
import { VmsanError } from "../model/errors.ts";
import type { VmRecord } from "../model/vm.ts";
import { formatDuration } from "../util/units.ts";

/** Why it was stopped, as the end of a sentence. */
function becauseOf({ stopReason, timeoutMs }: VmRecord): string {
  if (stopReason === undefined || timeoutMs === undefined) return "";
  return `: its time limit of ${formatDuration(timeoutMs)} (--timeout) has passed`;
}

/** The VM is not in the state that the call needs. */
export function notRunning(ref: string, record: VmRecord, wanted = "running"): VmsanError {
  return new VmsanError({
    code: "ERR_VM_NOT_RUNNING",
    message: `${ref} is not ${wanted}`,
    why: `${record.status === "running" ? "It is being stopped" : `It is ${record.status}`}${becauseOf(record)}.`,
    fix: ["paused", "suspended"].includes(record.status)
      ? `vmsan resume ${ref}`
      : `vmsan start ${ref}`,
  });
}

/** The VM must be stopped for that. */
export function notStopped(action: string, record: VmRecord, fix: string): VmsanError {
  return new VmsanError({
    code: "ERR_VM_NOT_STOPPED",
    message: action,
    why: `It is ${record.status}.`,
    fix,
  });
}

/** No VM has that ID or name. */
export function notFound(ref: string): VmsanError {
  return new VmsanError({
    code: "ERR_VM_NOT_FOUND",
    message: `No VM ${ref}`,
    why: "No VM has that ID or name.",
    fix: "Run `vmsan list` to see all.",
  });
}

/** Another VM has that name. */
export function nameTaken(name: string, id: string): VmsanError {
  return new VmsanError({
    code: "ERR_VM_NAME_TAKEN",
    message: `Cannot create a VM named ${name}`,
    why: `${id} has that name.`,
    fix: `Choose another name, or remove that VM: vmsan rm -f ${name}`,
  });
}

/** The creation was cancelled. */
export function interrupted(id: string): VmsanError {
  return new VmsanError({
    code: "ERR_VM_INTERRUPTED",
    message: `The creation of ${id} was interrupted`,
    why: "The request was cancelled; all that had been made was removed.",
    fix: "Create it again.",
  });
}

/** The VM is being removed under a command that runs in it. */
export function removed(ref: string): VmsanError {
  return new VmsanError({
    code: "ERR_VM_NOT_RUNNING",
    message: `${ref} is not running`,
    why: "It is being removed.",
    fix: "Nothing of it will be left; make another one: vmsan create.",
  });
}

/** The start was cancelled. */
export function startInterrupted(ref: string): VmsanError {
  return new VmsanError({
    code: "ERR_VM_INTERRUPTED",
    message: `The start of ${ref} was interrupted`,
    why: "It was removed meanwhile, or the request was cancelled.",
    fix: `If it is still there (vmsan list), start it again: vmsan start ${ref}`,
  });
}
