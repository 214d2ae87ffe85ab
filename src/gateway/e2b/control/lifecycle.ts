/** Sandboxes that pause and go on, and the end of those whose time is over. */
import type { Vm } from "../../../client/vm.ts";
import type { Vmsan } from "../../../client/vmsan.ts";
import type { VmView } from "../../../model/api.ts";
import type { Log } from "../../../util/log.ts";
import { E2bError } from "../errors.ts";
import {
  PAUSE_GRACE_MS,
  endOf,
  isSandbox,
  keepsMemory,
  lifetimeOf,
  stateOf,
  volumesOf,
  wakesOnUse,
} from "../sandbox.ts";
import type { VolumePlaces } from "../volumes/places.ts";
import { startInterpreter } from "./interpreter.ts";

/** How often ends are looked for, in milliseconds; one that is known is met when it comes. */
const SWEEP_MS = 2_000;
/** With thousands of sandboxes less often: the pauses are so many times as long as a look takes. */
const SWEEP_SHARE = 20;
/** Time from one look to the next at least, in milliseconds. */
const SWEEP_PAUSE_MS = 50;

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

/** Ends sandboxes whose time is over, for as long as a gateway runs. */
export class Sweeper {
  private readonly vmsan: Vmsan;
  private readonly log: Log;
  private timer: NodeJS.Timeout | undefined;
  private readonly busy = new Set<string>();
  private closed = false;

  constructor(vmsan: Vmsan, log: Log) {
    this.vmsan = vmsan;
    this.log = log;
    this.sweepIn(SWEEP_MS);
  }

  /** Stop looking. */
  close(): void {
    this.closed = true;
    clearTimeout(this.timer);
  }

  private sweepIn(ms: number): void {
    if (this.closed) return;
    this.timer = setTimeout(() => void this.sweep(), ms);
    this.timer.unref();
  }

  private async sweep(): Promise<void> {
    let next = SWEEP_MS;
    const since = performance.now();
    try {
      const views = await this.vmsan.list();
      for (const view of views) void this.settle(view);
      const tookMs = performance.now() - since;
      next = untilNextEnd(views, Math.max(SWEEP_MS, tookMs * SWEEP_SHARE));
    } catch (error) {
      this.log.error("cannot look for sandboxes whose time is over", error);
    } finally {
      this.sweepIn(next);
    }
  }

  /** Do what is due for one. */
  private async settle(view: VmView): Promise<void> {
    const { id } = view;
    if (!isSandbox(view) || this.busy.has(id)) return;
    const due = dueFor(view);
    if (due === undefined) return;
    this.busy.add(id);
    try {
      if (due === "remove") await this.vmsan.remove(id, { force: true });
      else await (await this.vmsan.get(id)).suspend();
    } catch (error) {
      this.log.error(`cannot ${due} the sandbox ${id}`, error);
    } finally {
      this.busy.delete(id);
    }
  }
}

/** How long until the next end of a sandbox that is to pause then; at most so many milliseconds. */
function untilNextEnd(views: VmView[], most: number): number {
  const now = Date.now();
  const ends = views
    .filter((view) => view.status === "running" && keepsMemory(view.labels))
    .map((view) => Date.parse(endOf(view) ?? "") - now)
    .filter((ms) => ms > 0);
  return Math.max(SWEEP_PAUSE_MS, Math.min(most, ...ends));
}

/** What is due for a sandbox now. */
function dueFor(view: VmView): "remove" | "suspend" | undefined {
  const { labels, status } = view;
  if (status === "creating") return undefined;
  if (stateOf(view) === undefined) return "remove";
  if (status !== "running" || !keepsMemory(labels)) return undefined;
  return Date.parse(endOf(view) ?? "") <= Date.now() ? "suspend" : undefined;
}
