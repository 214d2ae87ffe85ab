/** The memory of one pod: kept at its end, gone on with at its beginning. */
import { setTimeout as sleep } from "node:timers/promises";
import { ApiError } from "../../../kube/api-server.ts";
import type { Vm } from "../../../client/vm.ts";
import { removeVm } from "../life/guest.ts";
import type { Vmsan } from "../../../client/vmsan.ts";
import type { Pod } from "../../../schema/pod.ts";
import { whyOf } from "../spec/failure.ts";
import { retryPause } from "../starting/restarts.ts";
import { wantsMemory } from "./kept-memory.ts";
import type { KeptMemory } from "./kept-memory.ts";

/** How often what is kept is asked for: a daemon or an API server may be away for a moment. */
const ATTEMPTS = 5;

/** What a pod's memory is made of, and who is told of it. */
interface MemoryParts {
  kept: KeptMemory;
  vmsan: Vmsan;
  /** As the API server has it now. */
  pod: () => Pod;
  event: (type: "Normal" | "Warning", reason: string, message: string) => void;
}

/** Of one pod. */
export class PodMemory {
  private readonly parts: MemoryParts;

  constructor(parts: MemoryParts) {
    this.parts = parts;
  }

  /**
   * Have its VM fall asleep for the next pod of its name, if it wants that.
   * @param vm in which its command runs; undefined: there is none
   * @returns false: it is to end as ever
   */
  async keep(vm: Vm | undefined, graceSeconds: number): Promise<boolean> {
    const { kept, pod, event } = this.parts;
    if (vm === undefined || !wantsMemory(pod())) return false;
    try {
      await kept.keep(pod(), vm, graceSeconds);
    } catch (error) {
      event("Warning", "NotSuspended", `it ends without its memory being kept: ${whyOf(error)}`);
      return false;
    }
    event("Normal", "Suspended", `its memory is kept on this host, in ${vm.id}`);
    return true;
  }

  /**
   * Go on in what an earlier pod of its name has left, if it wants that and there is such.
   * @param goOn wakes it; false: its command does not run there
   */
  async goOn(goOn: (vm: Vm) => Promise<boolean>): Promise<boolean> {
    const { vmsan, pod, event } = this.parts;
    if (!wantsMemory(pod())) return false;
    const lost = (why: string): void => event("Warning", "NotResumed", `it begins anew: ${why}`);
    let vm: Vm | undefined;
    try {
      vm = await this.take(lost);
      if (vm === undefined) return false;
      if (await goOn(vm)) {
        event("Normal", "Resumed", `it goes on with the memory that was kept, in ${vm.id}`);
        return true;
      }
      lost("its command does not run in what was kept");
    } catch (error) {
      lost(whyOf(error));
    }
    // Nobody else knows of it any more.
    if (vm !== undefined) await removeVm(vmsan, vm.id);
    return false;
  }

  private async take(lost: (why: string) => void): Promise<Vm | undefined> {
    for (let failed = 1; ; failed += 1) {
      try {
        return await this.parts.kept.take(this.parts.pod(), lost);
      } catch (error) {
        const isAnswer = error instanceof ApiError && error.status < 500;
        if (isAnswer || failed === ATTEMPTS) throw error;
      }
      await sleep(retryPause(failed, false), undefined, { ref: false });
    }
  }
}
