import { expect, test } from "vitest";
import { BuildUsers } from "./users.ts";

const never = new AbortController().signal;

/** Whether a promise has been kept by now. */
async function kept(promise: Promise<unknown>): Promise<boolean> {
  const later = new Promise((resolve) => setImmediate(resolve, false));
  return (await Promise.race([promise.then(() => true), later])) as boolean;
}

test("builds that were interrupted are waited for until they have left; those that go on are not", async () => {
  const users = new BuildUsers();
  await users.settled(never);
  const [one, other] = [new AbortController(), new AbortController()];
  users.enter(one.signal);
  users.enter(other.signal);
  // One goes on: there is nothing to wait for.
  one.abort();
  await users.settled(never);
  other.abort();
  const settled = users.settled(never);
  users.leave(one.signal);
  expect(await kept(settled)).toBe(false);
  users.leave(other.signal);
  await settled;
  expect(users.count).toBe(0);
});

test("a wait ends with its limit", async () => {
  const users = new BuildUsers();
  const ended = AbortSignal.abort();
  users.enter(ended);
  const limit = new AbortController();
  const settled = users.settled(limit.signal);
  const none = users.none(limit.signal);
  limit.abort(new Error("enough"));
  await settled;
  await expect(none).rejects.toThrow("enough");
  expect(users.count).toBe(1);
});
