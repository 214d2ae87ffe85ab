import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { StartWatch } from "./start-watch.ts";

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
});
afterEach(() => {
  vi.useRealTimers();
});

test("a start that takes long says what it is at, ever more seldom, until it is over", () => {
  const told: string[] = [];
  const watch = new StartWatch((message) => told.push(message));
  watch.begin();
  watch.at("its VM is made");
  vi.advanceTimersByTime(59_000);
  expect(told).toEqual([]);
  watch.onProgress({ phase: "pull", item: "ab12", done: 2 ** 20, total: 2 ** 21, unit: "bytes" });
  vi.advanceTimersByTime(1_000);
  expect(told).toEqual(["not started for 60 s: pull ab12 1.0 MiB of 2.0 MiB"]);
  watch.onProgress({ phase: "boot", message: "qemu (tcg)" });
  vi.advanceTimersByTime(120_000);
  expect(told[1]).toBe("not started for 180 s: boot qemu (tcg)");
  watch.end();
  vi.advanceTimersByTime(10_000_000);
  expect(told.length).toBe(2);
});
