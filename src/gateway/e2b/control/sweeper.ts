/**
 * Ends sandboxes whose time is over, for as long as a gateway runs. What happens to VMs is told by events, so that thousands of
 * sandboxes that nothing happens to are not asked for again and again: a list of them holds up every call meanwhile.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { Vmsan } from "../../../client/vmsan.ts";
import type { VmView } from "../../../model/api.ts";
import { VmsanError } from "../../../model/errors.ts";
import type { VmsanEvent } from "../../../model/event.ts";
import type { Log } from "../../../util/log.ts";
import { endOf, isSandbox, keepsMemory, stateOf } from "../sandbox.ts";

/** How often ends are looked for where nothing is told (on a cluster), and what failed is tried again; in milliseconds. */
const SWEEP_MS = 2_000;
/** With thousands of sandboxes less often: the pauses are so many times as long as a list takes. */
const SWEEP_SHARE = 20;
/** Where events tell, lists are only a second pair of eyes. */
const LIST_MS = 60_000;
/** What is told of is looked at so much later: much happens at once. */
const TOLD_MS = 100;
/** Time from one look to the next at least, in milliseconds. */
const SWEEP_PAUSE_MS = 50;
/** Most VMs that are looked at in one go. */
const MAX_AT_ONCE = 100;

/** Ends what is due. */
export class Sweeper {
  private readonly vmsan: Vmsan;
  private readonly log: Log;
  private readonly closing = new AbortController();
  private timer: NodeJS.Timeout | undefined;
  /** When {@link timer} rings. */
  private ringsAt = Infinity;
  private readonly busy = new Set<string>();
  /** Sandboxes as they were when they were looked at last. */
  private readonly known = new Map<string, VmView>();
  /** VMs that something has happened to since. */
  private readonly told = new Set<string>();
  /** Whether events tell; until they do, and where they do not, lists do. */
  private following = false;
  /** Who tells is gone. A daemon that is killed has a successor soon; one that was ended is started again where a sandbox's time is over alone. */
  private away = false;
  /** Something may have happened that was not told. */
  private missed = false;
  /** By the clock that never goes back. */
  private listedAt = -Infinity;
  private listMs = 0;

  constructor(vmsan: Vmsan, log: Log) {
    this.vmsan = vmsan;
    this.log = log;
    if (!vmsan.cluster) void this.follow();
    this.sweepIn(SWEEP_MS);
  }

  /** Stop looking. */
  close(): void {
    this.closing.abort();
    clearTimeout(this.timer);
  }

  /** Be told what happens for as long as this is open. */
  private async follow(): Promise<void> {
    const { signal } = this.closing;
    let said = false;
    const onBegin = (): void => {
      said = false;
      this.missed = true;
      this.following = true;
      this.soon();
    };
    const onConnection = (connected: boolean): void => {
      this.away = !connected;
      if (connected) this.soon();
    };
    const options = { types: ["vm"], signal, onBegin, onConnection };
    while (!signal.aborted) {
      try {
        for await (const event of this.vmsan.events(options)) this.hear(event);
      } catch (error) {
        if (!said) this.log.error("cannot follow what happens to sandboxes", error);
        said = true;
      }
      this.following = false;
      this.away = false;
      // Aborted when this closes.
      await sleep(SWEEP_MS, undefined, { signal, ref: false }).catch(() => undefined);
    }
  }

  private hear({ type, vm }: VmsanEvent): void {
    if (type === "missed") this.missed = true;
    else if (type === "vm.removed") this.known.delete(vm?.id ?? "");
    else if (vm !== undefined && type !== "vm.created") this.told.add(vm.id);
    else return;
    this.soon();
  }

  private soon(): void {
    if (this.ringsAt > performance.now() + TOLD_MS) this.sweepIn(TOLD_MS);
  }

  private sweepIn(ms: number): void {
    if (this.closing.signal.aborted) return;
    clearTimeout(this.timer);
    this.ringsAt = performance.now() + ms;
    this.timer = setTimeout(() => void this.sweep(), ms);
    this.timer.unref();
  }

  private async sweep(): Promise<void> {
    // What is told meanwhile waits for the next time.
    this.ringsAt = -Infinity;
    let next = SWEEP_MS;
    try {
      if (this.away && !this.isAnyOver()) return;
      await this.look();
      for (const view of this.known.values()) void this.settle(view);
      next = Math.min(this.untilNextEnd(), this.untilNextList());
      if (this.told.size > 0) next = Math.min(next, TOLD_MS);
    } catch (error) {
      this.log.error("cannot look for sandboxes whose time is over", error);
    } finally {
      this.sweepIn(Math.max(SWEEP_PAUSE_MS, next));
    }
  }

  /** Time until all are to be looked at again. */
  private untilNextList(): number {
    const pause = this.following && !this.missed ? LIST_MS : SWEEP_MS;
    return this.listedAt + Math.max(pause, this.listMs * SWEEP_SHARE) - performance.now();
  }

  /** Know of sandboxes what is so now. */
  private async look(): Promise<void> {
    if (this.untilNextList() <= 0) {
      await this.list();
      return;
    }
    for (const id of [...this.told].slice(0, MAX_AT_ONCE)) {
      this.told.delete(id);
      try {
        await this.refresh(id);
      } catch (error) {
        this.told.add(id);
        throw error;
      }
    }
  }

  private async list(): Promise<void> {
    const at = performance.now();
    this.told.clear();
    this.missed = false;
    try {
      const views = await this.vmsan.list();
      this.known.clear();
      for (const view of views) if (isSandbox(view)) this.known.set(view.id, view);
    } catch (error) {
      this.missed = true;
      throw error;
    }
    this.listedAt = at;
    this.listMs = performance.now() - at;
  }

  /** Know of one what is so now. */
  private async refresh(id: string): Promise<VmView | undefined> {
    try {
      const { view } = await this.vmsan.get(id);
      if (!isSandbox(view)) return undefined;
      this.known.set(id, view);
      return view;
    } catch (error) {
      if (!(error instanceof VmsanError) || error.code !== "ERR_VM_NOT_FOUND") throw error;
      this.known.delete(id);
      return undefined;
    }
  }

  /** Do what is due for one. */
  private async settle(last: VmView): Promise<void> {
    const { id } = last;
    if (this.busy.has(id) || dueFor(last) === undefined) return;
    this.busy.add(id);
    try {
      // It may have been given more time meanwhile.
      const view = await this.refresh(id);
      const due = view && dueFor(view);
      if (due === "remove") await this.vmsan.remove(id, { force: true });
      if (due === "suspend") await (await this.vmsan.get(id)).suspend();
    } catch (error) {
      this.log.error(`cannot end the sandbox ${id} in its time`, error);
    } finally {
      this.busy.delete(id);
    }
  }

  /** Whether a sandbox runs whose time is over, which is the daemon's to end or to be told of. */
  private isAnyOver(): boolean {
    const now = Date.now();
    return [...this.known.values()].some(
      (view) => view.status === "running" && Date.parse(endOf(view) ?? "") <= now,
    );
  }

  /** How long until the next end of a sandbox; what is due already, and is being done, is tried again if that fails. */
  private untilNextEnd(): number {
    const now = Date.now();
    let next = Infinity;
    for (const view of this.known.values()) {
      const end = Date.parse(endOf(view) ?? "") - now;
      if (dueFor(view) !== undefined) next = Math.min(next, SWEEP_MS);
      else if (view.status === "running" && end > 0) next = Math.min(next, end);
    }
    return next;
  }
}

/** What is due for a sandbox now. */
function dueFor(view: VmView): "remove" | "suspend" | undefined {
  const { labels, status } = view;
  if (status === "creating") return undefined;
  if (stateOf(view) === undefined) return "remove";
  if (status !== "running" || !keepsMemory(labels)) return undefined;
  return Date.parse(endOf(view) ?? "") <= Date.now() ? "suspend" : undefined;
}
