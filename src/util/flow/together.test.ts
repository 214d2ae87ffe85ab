import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { together } from "./together.ts";

test("gives all results", async () => {
  const never = new AbortController().signal;
  expect(
    await together<[number, string]>(
      never,
      async () => 1,
      async () => "b",
    ),
  ).toEqual([1, "b"]);
});

test("a failure ends the others and is thrown after they have ended", async () => {
  let ended = false;
  const work = together<[void, void]>(
    new AbortController().signal,
    async () => {
      throw new Error("first");
    },
    async (signal) => {
      await sleep(60_000, undefined, { signal }).catch(() => undefined);
      ended = true;
    },
  );
  await expect(work).rejects.toThrow("first");
  expect(ended).toBe(true);
});
