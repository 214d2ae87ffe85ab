/** Sandboxes that pause and go on. */
import type { Vm } from "../../../client/vm.ts";
import type { Vmsan } from "../../../client/vmsan.ts";
import { E2bError } from "../errors.ts";
import {
  PAUSE_GRACE_MS,
  keepsMemory,
  lifetimeOf,
  stateOf,
  volumesOf,
  wakesOnUse,
} from "../sandbox.ts";
import type { VolumePlaces } from "../volumes/places.ts";
import { startInterpreter } from "./interpreter.ts";

/** The VM's own time limit for a sandbox that is to live so long. */
export function vmLimit(labels: Record<string, string>, ms: number): number {
  return Math.max(1, ms) + (keepsMemory(labels) ? PAUSE_GRACE_MS : 0);
}

/** Let a sandbox live for so long from now on. @param ms milliseconds */
export async function prolong(vm: Vm, ms: number): Promise<void> {
  await vm.extendTimeout(vmLimit(vm.view.labels, ms));
}

/** Sandboxes that are pods do not pause, with their disk alone neither: it is gone with the pod. @throws unimplemented */
export function checkPauses(vmsan: Vmsan): void {
  if (!vmsan.cluster) return;
  throw new E2bError("unimplemented", "sandboxes on a cluster do not pause", 400);
}

/** Pause a sandbox. @param memory false: its disk alone is kept. @throws already_exists when it is paused */
export async function pauseSandbox(vm: Vm, memory: boolean): Promise<void> {
  if (stateOf(vm.view) === "paused")
    throw new E2bError("already_exists", `Sandbox "${vm.id}" is paused already`);
  if (memory) await vm.suspend();
  else await vm.stop();
}

/**
 * Let a paused sandbox go on.
 * @param ms how long it lives from now on
 * @param places of the volumes that one gets back whose disk alone was kept
 */
export async function resumeSandbox(vm: Vm, ms: number, places: VolumePlaces): Promise<void> {
  // Before it runs: its end was over, and it would pause again, or be stopped, before it is told another.
  await prolong(vm, ms);
  if (vm.view.status === "stopped") {
    await places.without(volumesOf(vm.view), async () => await vm.start());
    await startInterpreter(vm);
  } else await vm.resume();
  await vm.refresh();
  await prolong(vm, ms);
}

/** Wakes paused sandboxes that are used, if they were made so. */
export class Waker {
  private readonly waking = new Map<string, Promise<void>>();
  private readonly places: VolumePlaces;

  constructor(places: VolumePlaces) {
    this.places = places;
  }

  /** A sandbox that can be used now, or undefined for one that stays paused. */
  async ready(vm: Vm): Promise<Vm | undefined> {
    if (stateOf(vm.view) !== "paused") return vm;
    if (!wakesOnUse(vm.view)) return undefined;
    let waking = this.waking.get(vm.id);
    if (waking === undefined) {
      waking = resumeSandbox(vm, lifetimeOf(vm.view), this.places).finally(() =>
        this.waking.delete(vm.id),
      );
      this.waking.set(vm.id, waking);
    }
    await waking;
    await vm.refresh();
    return vm;
  }
}
