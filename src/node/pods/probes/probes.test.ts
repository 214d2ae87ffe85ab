import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Vm } from "../../../client/vm.ts";
import { Probes } from "./probes.ts";

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
});
afterEach(() => {
  vi.useRealTimers();
});

test("a container that has started is given the time that its other probes leave it, from its start on", async () => {
  const asked: string[] = [];
  const vm = {
    exec: async ([word = ""]: readonly string[]) => {
      asked.push(`${word} ${Math.round(performance.now() / 1000)}`);
      return await Promise.resolve({ exitCode: 0, timedOut: false });
    },
  } as unknown as Vm;
  const told: object[] = [];
  const probe = (word: string): object => ({ exec: { command: [word] } });
  const probes = new Probes(
    {
      name: "main",
      image: "a",
      startupProbe: { ...probe("startup"), initialDelaySeconds: 2 },
      livenessProbe: { ...probe("liveness"), initialDelaySeconds: 30, periodSeconds: 100 },
      readinessProbe: { ...probe("readiness"), periodSeconds: 100 },
    },
    { onChange: (now) => told.push(now), onDead: () => undefined, onUnhealthy: () => undefined },
  );
  expect(probes.initially()).toEqual({ started: false, ready: false });
  const from = Math.round(performance.now() / 1000);
  probes.begin(vm, 0);
  await vi.advanceTimersByTimeAsync(60_000);
  expect(asked).toEqual(
    [
      ["startup", 2],
      ["readiness", 2],
      ["liveness", 30],
    ].map(([word, at]) => `${word} ${from + Number(at)}`),
  );
  expect(told).toEqual([
    { started: true, ready: false },
    { started: true, ready: true },
  ]);
  probes.end();
});
