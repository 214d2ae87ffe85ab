/** Why a pod cannot run here, or not yet. */
import { VmsanError, messageOf } from "../../../model/errors.ts";

/** Longest message of a status, in characters. */
const MAX_MESSAGE = 1_000;

/** A pod that this node does not run, whatever comes: it fails with this reason. */
export class PodRefusedError extends VmsanError {
  readonly reason: string;

  constructor(reason: string, message: string) {
    super({
      code: "ERR_NODE_POD_REFUSED",
      message,
      fix: "docs/cluster.md lists the fields of pods that become VMs.",
    });
    this.reason = reason;
  }
}

/** What a pod needs is not there yet: it is tried again. */
export class PodNotReadyError extends VmsanError {
  /** As the kubelet calls it: `ErrImagePull`, `CreateContainerConfigError` … */
  readonly reason: string;

  constructor(reason: string, message: string, cause?: unknown) {
    super({ code: "ERR_NODE_POD_WAITS", message }, cause);
    this.reason = reason;
  }
}

/** An error in one line, with its reason; bounded. */
export function whyOf(error: unknown): string {
  const why = error instanceof VmsanError && error.why !== undefined ? `: ${error.why}` : "";
  return `${messageOf(error)}${why}`.slice(0, MAX_MESSAGE);
}

/** Why a pod could not be started, in the words of its status; a lasting failure is not tried again. */
export function startFailure(error: unknown): {
  reason: string;
  message: string;
  lasting: boolean;
} {
  const code = error instanceof VmsanError ? error.code : "";
  const message = whyOf(error);
  if (error instanceof PodRefusedError) return { reason: error.reason, message, lasting: true };
  // A port is free again when whoever has it ends.
  if (code.startsWith("ERR_VALIDATION") && code !== "ERR_VALIDATION_PORT_CONFLICT")
    return { reason: "InvalidPod", message, lasting: true };
  if (code === "ERR_AGENT_SYSCTL") return { reason: "SysctlForbidden", message, lasting: true };
  if (error instanceof PodNotReadyError) return { reason: error.reason, message, lasting: false };
  const reason = code.startsWith("ERR_IMAGE") ? "ErrImagePull" : "CreateContainerError";
  return { reason, message, lasting: false };
}
