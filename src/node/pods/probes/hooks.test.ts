import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import type { Vm } from "../../../client/vm.ts";
import type { PodHook } from "../../../schema/pod.ts";
import { runHook } from "./hooks.ts";

/** What a pod may say, and no timer takes. */
const SECONDS = 2 ** 31 - 1;

test("a time that is longer than any timer's is the longest one, and neither none nor an error", async () => {
  let limit: AbortSignal | undefined;
  const vm = {
    exec: async (_argv: readonly string[], { signal }: { signal: AbortSignal }) => {
      limit = signal;
      return await Promise.resolve({ exitCode: 0, timedOut: false });
    },
  } as unknown as Vm;
  const enough = new AbortController();
  const hook = async (what: PodHook): Promise<string | undefined> =>
    await runHook(vm, { name: "main", image: "a" }, what, enough.signal, SECONDS);
  expect(await hook({ exec: { command: ["true"] } })).toBeUndefined();
  const over: string[] = [];
  const sleeping = hook({ sleep: { seconds: SECONDS } });
  sleeping.then(
    () => over.push("slept"),
    () => over.push("given up"),
  );
  // Timers that are given too much end after a millisecond.
  await sleep(50);
  expect(limit?.aborted).toBe(false);
  enough.abort();
  await expect(sleeping).rejects.toThrow();
  expect(over).toEqual(["given up"]);
});
