import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Vmsan } from "../../../client/vmsan.ts";
import { PAUSE_GRACE_MS, SANDBOX_LABELS } from "../sandbox.ts";
import { Sweeper } from "./lifecycle.ts";

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

/** A running sandbox that is to pause so many milliseconds from now. */
function pausingIn(id: string, ms: number): object {
  return {
    id,
    status: "running",
    labels: { [SANDBOX_LABELS.template]: "base", [SANDBOX_LABELS.onTimeout]: "pause" },
    timeoutAt: new Date(Date.now() + ms + PAUSE_GRACE_MS).toISOString(),
  };
}

test("sandboxes pause when their time is over, not at the next look", async () => {
  const views = [pausingIn("early", 2_300), pausingIn("late", 2_700)];
  const slept: string[] = [];
  const suspend = (id: string) => async () => {
    await Promise.resolve();
    slept.push(id);
    Object.assign(views.find((view) => (view as { id: string }).id === id) ?? {}, {
      status: "suspended",
    });
  };
  const vmsan = {
    list: async () => await Promise.resolve(views),
    get: async (id: string) => await Promise.resolve({ suspend: suspend(id) }),
  };
  const sweeper = new Sweeper(vmsan as unknown as Vmsan, {
    info: vi.fn<() => void>(),
    error: vi.fn<() => void>(),
  });
  try {
    await vi.advanceTimersByTimeAsync(2_250);
    expect(slept).toEqual([]);
    await vi.advanceTimersByTimeAsync(150);
    expect(slept).toEqual(["early"]);
    await vi.advanceTimersByTimeAsync(250);
    expect(slept).toEqual(["early"]);
    await vi.advanceTimersByTimeAsync(150);
    expect(slept).toEqual(["early", "late"]);
  } finally {
    sweeper.close();
  }
  expect(vi.getTimerCount()).toBe(0);
});
