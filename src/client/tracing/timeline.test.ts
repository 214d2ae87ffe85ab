/** Steps of a command: what is in none is told, and the file is what trace viewers read. */
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import {
  asStep,
  beginStep,
  keepTimeline,
  noteCall,
  noteCommand,
  timing,
  timingLines,
  traceEvents,
} from "./timeline.ts";

test("steps, the daemon's phases within them, what has not ended, and the rest", async () => {
  expect(timing()).toBeUndefined();
  // Without being asked nothing is kept.
  beginStep("too early")();
  // The shell's script began 30 ms before this process.
  keepTimeline(String(BigInt(Math.round((performance.timeOrigin - 30) * 1000)) * 1000n));
  await sleep(5);
  await asStep("POST /v1/vms", async () => {
    const began = performance.now();
    await sleep(20);
    const phases = [
      // Two at a time, of which neither lies within the other, and 4 ms of nobody's.
      { name: "image", fromMs: 0, ms: 6 },
      { name: "network", fromMs: 3, ms: 5 },
      { name: "kernel", fromMs: 12, ms: 3, by: "guest" as const },
    ];
    noteCall({ ms: 15, phases }, began);
  });
  await sleep(3);
  await expect(asStep("fails", async () => await Promise.reject(new Error("no")))).rejects.toThrow(
    "no",
  );
  const ended = beginStep("exec");
  await sleep(4);
  noteCommand(2);
  // A clock that runs ahead: nothing lies outside of the call.
  noteCall({ ms: 1e6, phases: [{ name: "late", fromMs: -5, ms: 2e6 }] }, performance.now());
  // It has not ended when the process does.
  const told = timing();
  ended();
  if (told === undefined) throw new Error("nothing was kept");
  const isNamed = ({ name }: { name: string }): boolean => name !== "in the client";
  const names = told.steps.filter(isNamed).map(({ name, by }) => `${by}: ${name}`);
  expect(names).toEqual([
    "client: start of the client",
    "client: POST /v1/vms",
    "daemon: image",
    "daemon: network",
    "daemon: in the daemon",
    "guest: kernel",
    "client: fails",
    "client: exec",
    "guest: command",
    "daemon: late",
  ]);
  const stepOf = (name: string): { fromMs: number; ms: number } => {
    const found = told.steps.find((step) => step.name === name);
    if (found === undefined) throw new Error(`no ${name}`);
    return found;
  };
  expect(told.steps.some((step) => !isNamed(step) && step.ms >= 2)).toBe(true);
  expect(stepOf("start of the client").ms).toBeGreaterThan(30);
  expect(stepOf("image").ms).toBeCloseTo(6, 0);
  expect(stepOf("network").fromMs - stepOf("image").fromMs).toBeCloseTo(3, 0);
  expect(stepOf("in the daemon").ms).toBeCloseTo(4, 0);
  expect(stepOf("late").ms).toBeLessThan(20);
  // Nothing is left over, and nothing is counted twice.
  const sum = told.steps.reduce((ms, step) => ms + (step.by === "client" ? step.ms : 0), 0);
  expect(Math.abs(told.totalMs - sum)).toBeLessThan(1);

  expect(timingLines(told).at(-1)).toMatch(/^ +\d+\.\d {2}in all$/);
  const { traceEvents: events } = traceEvents(told, "vmsan run") as {
    traceEvents: { ph: string; name: string; tid: number; ts: number; dur: number }[];
  };
  const spans = events.filter(({ ph }) => ph === "X");
  expect(spans.map(({ name }) => name).toSorted()).toEqual(
    ["vmsan run", ...told.steps.map(({ name }) => name)].toSorted(),
  );
  expect(spans.every(({ ts, dur }) => ts >= 0 && dur >= 0)).toBe(true);
  // What viewers read: on one thread spans follow each other, or one lies within the other.
  for (const [index, one] of spans.entries()) {
    for (const other of spans.slice(index + 1).filter(({ tid }) => tid === one.tid)) {
      const [first, second] = one.ts <= other.ts ? [one, other] : [other, one];
      const end = first.ts + first.dur;
      const apart = second.ts >= end;
      const within = first.ts === second.ts || second.ts + second.dur <= end;
      expect(apart || within).toBe(true);
    }
  }
  expect(
    new Set(spans.filter(({ name }) => /image|network/.test(name)).map(({ tid }) => tid)).size,
  ).toBe(2);
});
