/** Steps of a command: what is in none is told, and the file is what trace viewers read. */
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import {
  asStep,
  beginStep,
  keepTimeline,
  noteStart,
  timing,
  timingLines,
  traceEvents,
} from "./timeline.ts";

test("steps, the daemon's phases within them, and the rest", async () => {
  expect(timing()).toBeUndefined();
  // Without being asked nothing is kept.
  beginStep("too early")();
  keepTimeline();
  await sleep(5);
  await asStep("POST /v1/vms", async () => {
    await sleep(20);
    noteStart({ prepare: 4, queue: 0, network: 6, start: 9, total: 12 });
  });
  await sleep(3);
  await expect(asStep("fails", async () => await Promise.reject(new Error("no")))).rejects.toThrow(
    "no",
  );
  const told = timing();
  if (told === undefined) throw new Error("nothing was kept");
  const isNamed = ({ name }: { name: string }): boolean => name !== "in the client";
  const names = told.steps.filter(isNamed).map(({ name, by }) => `${by}: ${name}`);
  expect(names).toEqual([
    "client: start of the client",
    "client: POST /v1/vms",
    "daemon: prepare",
    "daemon: network",
    "client: fails",
  ]);
  expect(told.steps.some((step) => !isNamed(step) && step.ms >= 2)).toBe(true);
  const [prepare, network] = told.steps.filter(({ by }) => by === "daemon");
  expect(prepare?.ms).toBeCloseTo(4);
  expect((network?.fromMs ?? 0) - (prepare?.fromMs ?? 0)).toBeCloseTo(4, 0);
  // Nothing is left over, and nothing is counted twice.
  const sum = told.steps.reduce((ms, step) => ms + (step.by === "client" ? step.ms : 0), 0);
  expect(Math.abs(told.totalMs - sum)).toBeLessThan(1);

  expect(timingLines(told).at(-1)).toMatch(/^ +\d+\.\d {2}in all$/);
  const { traceEvents: events } = traceEvents(told, "vmsan run") as {
    traceEvents: { ph: string; name: string; tid?: number; ts?: number; dur?: number }[];
  };
  const spans = events.filter(({ ph }) => ph === "X");
  expect(spans.map(({ name }) => name)).toEqual([
    "vmsan run",
    ...told.steps.map(({ name }) => name),
  ]);
  expect(spans.find(({ name }) => name === "network")?.tid).toBe(2);
  expect(spans.every(({ ts = -1, dur = -1 }) => ts >= 0 && dur >= 0)).toBe(true);
});
