/** As many at once as there are places, in the order in which they came. */
import { setImmediate as turn } from "node:timers/promises";
import { expect, test } from "vitest";
import { Admission } from "./admission.ts";

const never = new AbortController().signal;

test("the third of two places waits, is told its place, and is let in by who leaves", async () => {
  const admission = new Admission(2);
  const [first, second] = [await admission.enter(never), await admission.enter(never)];
  const order: string[] = [];
  const places: number[] = [];
  const third = admission
    .enter(never, (before) => places.push(before))
    .then((leave) => {
      order.push("third");
      return leave;
    });
  const fourth = admission
    .enter(never, (before) => places.push(before))
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
  await Promise.all([admission.enter(never), admission.enter(never)]);
});

test("one that gives up leaves the queue", async () => {
  const admission = new Admission(1);
  const leave = await admission.enter(never);
  const stop = new AbortController();
  const given = admission.enter(stop.signal);
  const next = admission.enter(never);
  stop.abort(new Error("enough"));
  await expect(given).rejects.toThrow("enough");
  leave();
  (await next)();
});

test("one that takes too long keeps nobody out", async () => {
  const admission = new Admission(1, 1);
  const late = await admission.enter(never);
  const next = await admission.enter(never);
  // Its place has gone to the next: what it says now changes nothing.
  late();
  next();
});
