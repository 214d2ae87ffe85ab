/** Which blobs come when: over a way that one connection fills, and over one that gives each connection its share. */
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { AsManyAsHelp, inParallel } from "./parallel.ts";

const TICK_MS = 10;

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

/** Fetch blobs of these sizes. @param share bytes a millisecond for each of so many connections @returns when each was whole */
async function fetched(
  sizes: readonly number[],
  share: (connections: number) => number,
): Promise<{ ends: number[]; most: number; atEnd: number }> {
  const ends: number[] = [];
  const open = new Set<{ left: number; done: () => void }>();
  let bytes = 0;
  let now = 0;
  let most = 0;
  const tasks = sizes.map((size, index) => async () => {
    await new Promise<void>((done) => open.add({ left: size, done }));
    ends[index] = now;
  });
  const width = new AsManyAsHelp(() => bytes);
  const all = inParallel(tasks, undefined, width);
  while (ends.filter(Number).length < sizes.length && now < 1e6) {
    now += TICK_MS;
    most = Math.max(most, open.size);
    const each = share(open.size) * TICK_MS;
    for (const one of open) {
      one.left -= each;
      bytes += each;
      if (one.left > 0) continue;
      open.delete(one);
      one.done();
    }
    await vi.advanceTimersByTimeAsync(TICK_MS);
  }
  await all;
  expect(vi.getTimerCount()).toBe(0);
  return { ends, most, atEnd: width.now() };
}

test("where one connection fills the way, blobs come one after the other, and not later in all", async () => {
  // 100 kB a millisecond, whoever shares them.
  const { ends, most } = await fetched([50e6, 100e6, 150e6, 200e6], (count) => 1e5 / count);
  expect(most).toBeLessThanOrEqual(3);
  // All at once, the third would be whole after 4.5 s; one after the other, after 3 s.
  expect(ends[2]).toBeLessThan(4100);
  expect(ends[3]).toBeCloseTo(5000, -2);
});

test("where each connection has its share, as many come at once as are allowed", async () => {
  const { ends, most, atEnd } = await fetched(
    Array.from({ length: 12 }, () => 100e6),
    () => 2e4,
  );
  expect(most).toBe(6);
  // And no fewer later.
  expect(atEnd).toBe(6);
  // By six at once 10 s.
  expect(Math.max(...ends)).toBeLessThan(13_000);
});

test("the first failure ends the others, those that wait are not begun, and no clock goes on", async () => {
  const begun: number[] = [];
  const tasks = [0, 1, 2, 3].map((index) => async (stop: AbortSignal) => {
    begun.push(index);
    if (index === 1) throw new Error("no");
    await new Promise<void>((_, reject) =>
      stop.addEventListener("abort", () => reject(stop.reason as Error), { once: true }),
    );
  });
  await expect(inParallel(tasks, undefined, new AsManyAsHelp(() => 0))).rejects.toThrow("no");
  expect(begun).toEqual([0, 1]);
  expect(vi.getTimerCount()).toBe(0);
  await expect(inParallel([], undefined)).resolves.toBeUndefined();
});
