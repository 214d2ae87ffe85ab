/** Why a pod cannot run here, or not yet. */
import { VmsanError } from "../../../model/errors.ts";

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
