import { expect, test } from "vitest";
import { FairQueue } from "./fair-queue.ts";

/** Ask in a name; what was done is noted. */
function asker(queue: FairQueue, done: string[]) {
  return async (who: string, name: string): Promise<void> =>
    await queue.run(
      who,
      async () => void done.push(await Promise.resolve(name)),
      () => new Error(`no room for ${name}`),
    );
}

test("who asks once is not behind all that another asks", async () => {
  const done: string[] = [];
  const ask = asker(new FairQueue(10), done);
  const asked = ["a1", "a2", "a3", "a4"].map(async (name) => await ask("a", name));
  asked.push(ask("b", "b1"), ask("c", "c1"));
  await Promise.all(asked);
  expect(done).toEqual(["a1", "a2", "b1", "c1", "a3", "a4"]);
});

test("where there is no room, the longest line makes some, and one like the others does not", async () => {
  const done: string[] = [];
  const ask = asker(new FairQueue(3), done);
  const results = await Promise.allSettled([
    ask("a", "a1"),
    ask("a", "a2"),
    ask("a", "a3"),
    ask("a", "a4"),
    ask("a", "a5"),
    ask("b", "b1"),
    ask("c", "c1"),
    ask("d", "d1"),
  ]);
  // The first has begun; of the other four of a three may wait, and two of those go.
  expect(done).toEqual(["a1", "a2", "b1", "c1"]);
  expect(results.flatMap((one) => (one.status === "rejected" ? [String(one.reason)] : []))).toEqual(
    ["a3", "a4", "a5", "d1"].map((name) => `Error: no room for ${name}`),
  );
});

test("a task that fails fails alone", async () => {
  const queue = new FairQueue(3);
  const failed = queue.run(
    "a",
    async () => await Promise.reject(new Error("mine")),
    () => new Error("no room"),
  );
  await expect(failed).rejects.toThrow("mine");
  const done: string[] = [];
  await asker(queue, done)("a", "next");
  expect(done).toEqual(["next"]);
});
