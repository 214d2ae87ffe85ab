import { EventEmitter, on } from "node:events";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { EventOptions } from "../../../client/events.ts";
import type { Vmsan } from "../../../client/vmsan.ts";
import type { VmView } from "../../../model/api.ts";
import { VmsanError } from "../../../model/errors.ts";
import type { EventType, VmsanEvent } from "../../../model/event.ts";
import { PAUSE_GRACE_MS, SANDBOX_LABELS } from "../sandbox.ts";
import { Sweeper } from "./sweeper.ts";

beforeEach(() => vi.useFakeTimers());
afterEach(() => {
  vi.useRealTimers();
});

/** A running sandbox whose time is over so many milliseconds from now. */
function endingIn(id: string, ms: number, onTimeout: "pause" | "kill" = "pause"): VmView {
  const grace = onTimeout === "pause" ? PAUSE_GRACE_MS : 0;
  return {
    id,
    status: "running",
    labels: { [SANDBOX_LABELS.template]: "base", [SANDBOX_LABELS.onTimeout]: onTimeout },
    timeoutAt: new Date(Date.now() + ms + grace).toISOString(),
  } as unknown as VmView;
}

/** A host whose sandboxes these are, and what has been done to them. */
function hostOf(views: VmView[], { events = true, cluster = false } = {}) {
  const done: string[] = [];
  const counts = { list: 0, get: 0 };
  let tell: (event: VmsanEvent) => void = () => undefined;
  let connection: (connected: boolean) => void = () => undefined;
  const vmsan = {
    cluster,
    list: async () => {
      counts.list += 1;
      return await Promise.resolve([...views]);
    },
    get: async (id: string) => {
      counts.get += 1;
      const view = views.find((one) => one.id === id);
      if (view === undefined)
        throw new VmsanError({ code: "ERR_VM_NOT_FOUND", message: id, fix: "-" });
      const suspend = async (): Promise<void> => {
        await Promise.resolve();
        done.push(`suspend ${id}`);
        view.status = "suspended";
      };
      return await Promise.resolve({ view: { ...view }, suspend });
    },
    remove: async (id: string) => {
      await Promise.resolve();
      done.push(`remove ${id}`);
      views.splice(
        views.findIndex((one) => one.id === id),
        1,
      );
      tell({ type: "vm.removed", vm: { id } } as VmsanEvent);
    },
    async *events({ signal, onBegin, onConnection }: EventOptions) {
      await Promise.resolve();
      if (!events) throw new Error("not here");
      onBegin?.(1);
      connection = onConnection ?? connection;
      connection(true);
      const told = new EventEmitter();
      tell = (event) => void told.emit("event", event);
      try {
        for await (const [event] of on(told, "event", { signal })) yield event as VmsanEvent;
      } catch (error) {
        if (signal?.aborted !== true) throw error;
      }
    },
  };
  const log = { info: vi.fn<() => void>(), error: vi.fn<() => void>() };
  const sweeper = new Sweeper(vmsan as unknown as Vmsan, log);
  return {
    sweeper,
    done,
    counts,
    log,
    connected: (state: boolean) => connection(state),
    happens: (type: EventType, id: string) => tell({ type, vm: { id } } as VmsanEvent),
  };
}

test("sandboxes pause, or go, when their time is over, not at the next look", async () => {
  const { sweeper, done } = hostOf([
    endingIn("early", 2_300),
    endingIn("late", 2_700),
    endingIn("killed", 3_000, "kill"),
  ]);
  try {
    await vi.advanceTimersByTimeAsync(2_250);
    expect(done).toEqual([]);
    await vi.advanceTimersByTimeAsync(150);
    expect(done).toEqual(["suspend early"]);
    await vi.advanceTimersByTimeAsync(250);
    expect(done).toEqual(["suspend early"]);
    await vi.advanceTimersByTimeAsync(150);
    expect(done).toEqual(["suspend early", "suspend late"]);
    await vi.advanceTimersByTimeAsync(300);
    expect(done).toEqual(["suspend early", "suspend late", "remove killed"]);
  } finally {
    sweeper.close();
  }
  await vi.advanceTimersByTimeAsync(0);
  expect(vi.getTimerCount()).toBe(0);
});

test("sandboxes that nothing happens to are not asked for; the one that something happens to is", async () => {
  const views = [endingIn("a", 3_600_000), endingIn("b", 3_600_000)];
  const { sweeper, done, counts, happens } = hostOf(views);
  try {
    await vi.advanceTimersByTimeAsync(5_000);
    const { list } = counts;
    expect(list).toBeLessThanOrEqual(2);
    await vi.advanceTimersByTimeAsync(30_000);
    expect(counts).toEqual({ list, get: 0 });
    // Another is made, and one gets another end, which is sooner.
    views.push(endingIn("c", 1_000));
    happens("vm.started", "c");
    Object.assign(views[0] ?? {}, endingIn("a", 1_500));
    happens("vm.updated", "a");
    await vi.advanceTimersByTimeAsync(900);
    expect([counts.get, done]).toEqual([2, []]);
    await vi.advanceTimersByTimeAsync(700);
    expect(done).toEqual(["suspend c", "suspend a"]);
    expect(counts.list).toBe(list);
    // What the daemon has stopped at its end goes.
    Object.assign(views[1] ?? {}, { status: "stopped", stopReason: "time-limit" });
    Object.assign(views[1]?.labels ?? {}, { [SANDBOX_LABELS.onTimeout]: "kill" });
    happens("vm.stopped", "b");
    await vi.advanceTimersByTimeAsync(200);
    expect(done.at(-1)).toBe("remove b");
    // A second pair of eyes, and where something was not told.
    happens("missed", "");
    await vi.advanceTimersByTimeAsync(2_100);
    expect(counts.list).toBe(list + 1);
    await vi.advanceTimersByTimeAsync(61_000);
    expect(counts.list).toBe(list + 2);
  } finally {
    sweeper.close();
  }
});

test("nobody is asked for anything while nobody tells what happens, until a sandbox's time is over", async () => {
  const views = [endingIn("a", 240_000)];
  const { sweeper, done, counts, connected } = hostOf(views);
  try {
    await vi.advanceTimersByTimeAsync(2_500);
    const asked = { ...counts };
    connected(false);
    await vi.advanceTimersByTimeAsync(200_000);
    expect([counts, done]).toEqual([asked, []]);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(done).toEqual(["suspend a"]);
  } finally {
    sweeper.close();
  }
});

test("a sandbox that was given more time is left alone at its former end", async () => {
  const views = [endingIn("a", 5_000)];
  const { sweeper, done } = hostOf(views);
  try {
    await vi.advanceTimersByTimeAsync(3_000);
    // Told or not.
    Object.assign(views[0] ?? {}, endingIn("a", 10_000));
    await vi.advanceTimersByTimeAsync(3_000);
    expect(done).toEqual([]);
    await vi.advanceTimersByTimeAsync(7_100);
    expect(done).toEqual(["suspend a"]);
  } finally {
    sweeper.close();
  }
});

test.each([{ cluster: true }, { events: false }])(
  "where nothing is told they are looked for every two seconds: %o",
  async (how) => {
    const views: VmView[] = [];
    const { sweeper, done, counts } = hostOf(views, how);
    try {
      await vi.advanceTimersByTimeAsync(3_000);
      views.push(endingIn("a", 2_000));
      await vi.advanceTimersByTimeAsync(3_500);
      expect(done).toEqual(["suspend a"]);
      expect(counts.list).toBeGreaterThanOrEqual(3);
    } finally {
      sweeper.close();
    }
  },
);
