import { expect, test } from "vitest";
import { Events } from "./events.ts";
import { Ring } from "../../util/flow/ring.ts";

test("the last lines are kept, numbered on", () => {
  const ring = new Ring<{ n: number }>(10, 100);
  expect([ring.first, ring.last]).toEqual([101, 100]);
  for (let n = 1; n <= 1000; n += 1) ring.add({ n });
  expect(ring.last).toBe(1100);
  expect(ring.last - ring.first).toBeLessThanOrEqual(20);
  expect(ring.since(1098).map(({ n }) => n)).toEqual([999, 1000]);
  expect(ring.since(0).at(0)?.seq).toBe(ring.first);
  expect(ring.since(5000)).toEqual([]);
});

test("followers get each line once, and end with the log or their signal", async () => {
  const ring = new Ring<{ n: number }>(10);
  const seen: number[] = [];
  const end = new AbortController();
  const ended = (async () => {
    for await (const { n } of ring.follow(end.signal)) seen.push(n);
  })();
  const other = ring.follow(new AbortController().signal, 0);
  ring.add({ n: 1 });
  expect((await other.next()).value).toMatchObject({ n: 1, seq: 1 });
  ring.add({ n: 2 });
  expect((await other.next()).value).toMatchObject({ n: 2, seq: 2 });
  end.abort();
  await ended;
  expect(seen).toEqual([1, 2]);
  ring.close();
  expect(await other.next()).toEqual({ done: true, value: undefined });
});

test("a reader of events that is too slow is told what it has missed", async () => {
  const events = new Events();
  const reader = events.tell(new AbortController().signal, 0);
  events.host("image.removed", { image: "0" });
  const first = (await reader.next()).value;
  expect(first).toMatchObject({ type: "image.removed" });
  for (let n = 1; n <= 30_000; n += 1) events.host("image.removed", { image: String(n) });
  const missed = (await reader.next()).value;
  expect(missed).toMatchObject({ type: "missed", data: { from: first?.seq } });
  const next = (await reader.next()).value;
  expect(next?.seq).toBe((missed?.seq ?? 0) + 1);
});

test("who wants all from the start waits where nothing has happened yet, and misses nothing", async () => {
  const events = new Events();
  const reader = events.tell(new AbortController().signal, 0);
  const first = reader.next();
  // The reader waits now, and lets others get on.
  await new Promise((resolve) => setImmediate(resolve));
  events.host("image.removed", { image: "0" });
  expect((await first).value).toMatchObject({ type: "image.removed" });
});
