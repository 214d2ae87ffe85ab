/** As many at once as there are places, in the order in which they came, projects by turns. */
import { setImmediate as turn } from "node:timers/promises";
import { expect, test } from "vitest";
import { Admission } from "./admission.ts";

const never = new AbortController().signal;

test("the third of two places waits, is told its place, and is let in by who leaves", async () => {
  const admission = new Admission(2);
  const [first, second] = [await admission.enter(never, "a"), await admission.enter(never, "a")];
  const order: string[] = [];
  const places: number[] = [];
  const third = admission
    .enter(never, "a", (before) => places.push(before))
    .then((leave) => {
      order.push("third");
      return leave;
    });
  const fourth = admission
    .enter(never, "a", (before) => places.push(before))
    .then((leave) => {
      order.push("fourth");
      return leave;
    });
  await turn();
  expect(order).toEqual([]);
  expect(places).toEqual([0, 1]);
  first();
  // A second word from the same one lets nobody in.
  first();
  const leave = await third;
  await turn();
  expect(order).toEqual(["third"]);
  expect(places).toEqual([0, 1, 0]);
  leave();
  (await fourth)();
  second();
  // Both places are free again.
  await Promise.all([admission.enter(never, "a"), admission.enter(never, "a")]);
});

test("one that gives up leaves the queue", async () => {
  const admission = new Admission(1);
  const leave = await admission.enter(never, "a");
  const stop = new AbortController();
  const given = admission.enter(stop.signal, "a");
  const next = admission.enter(never, "a");
  stop.abort(new Error("enough"));
  await expect(given).rejects.toThrow("enough");
  leave();
  (await next)();
});

test("one that takes too long keeps nobody out", async () => {
  const admission = new Admission(1, 1);
  const late = await admission.enter(never, "a");
  const next = await admission.enter(never, "a");
  // Its place has gone to the next: what it says now changes nothing.
  late();
  next();
});

test("projects take turns: many of one keep no other's waiting", async () => {
  const admission = new Admission(1);
  let leave = await admission.enter(never, "many");
  const order: string[] = [];
  const places: number[] = [];
  const waiting = ["many 1", "many 2", "many 3", "few 1", "few 2"].map(async (name) => {
    const place = name === "many 3" ? (before: number) => places.push(before) : undefined;
    const done = await admission.enter(never, name.split(" ")[0] ?? "", place);
    order.push(name);
    leave = done;
  });
  for (let count = 1; count <= waiting.length; count += 1) {
    leave();
    await turn();
    expect(order).toHaveLength(count);
  }
  await Promise.all(waiting);
  expect(order).toEqual(["many 1", "few 1", "many 2", "few 2", "many 3"]);
  expect(places).toEqual([2, 3, 4, 3, 2, 1, 0]);
});
