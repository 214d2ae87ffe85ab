/** How a pod finds a VM that is there already: its own, or the one that an earlier pod of its name has left asleep. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Vm } from "../../../client/vm.ts";
import type { PodMemory } from "../kept/pod-memory.ts";
import { whyOf } from "../spec/failure.ts";
import { retryPause } from "./restarts.ts";

/** How often a pod's own VM is tried. */
const ATTEMPTS = 5;

/** What is done for one pod. */
interface TakingUpParts {
  memory: PodMemory;
  /** Go on in a VM. @returns false when nothing was ever started in it */
  adopt: (vm: Vm) => Promise<boolean>;
  /** It was gone on with what an earlier pod has left. */
  onResumed: () => Promise<void>;
  /** Its own VM cannot be had: its command has ended with it. */
  onLost: (why: string) => void;
  /** It could not be had yet; another attempt follows. */
  onTrouble: (message: string) => void;
  /** Aborted when it is not wanted any more. */
  signal: AbortSignal;
}

/** Of one pod, when it begins. */
export class TakingUp {
  private readonly parts: TakingUpParts;

  constructor(parts: TakingUpParts) {
    this.parts = parts;
  }

  /** @param vm the one with the pod's label @returns false: one has to be made */
  async run(vm: Vm | undefined): Promise<boolean> {
    const { memory, adopt, onResumed } = this.parts;
    if (vm !== undefined) return await this.own(vm);
    if (!(await memory.goOn(adopt))) return false;
    await onResumed();
    return true;
  }

  /** Its own: a daemon that is away, or a guest that does not answer, is asked again before the VM is given up. */
  private async own(vm: Vm): Promise<boolean> {
    const { adopt, onLost, onTrouble, signal } = this.parts;
    for (let failed = 1; ; failed += 1) {
      try {
        return await adopt(vm);
      } catch (error) {
        // Whoever ends it looks after the VM as well.
        if (signal.aborted) return true;
        const why = `cannot go on in ${vm.id}: ${whyOf(error)}`;
        if (failed === ATTEMPTS) {
          onLost(why);
          return true;
        }
        onTrouble(why);
      }
      // AbortError: it is not wanted any more.
      await sleep(retryPause(failed, false), undefined, { signal, ref: false }).catch(
        () => undefined,
      );
    }
  }
}
