import { expect, test } from "vitest";
import { SharedMutex } from "./shared-mutex.ts";

/** A promise and what ends it. */
function gate(): { passed: Promise<void>; open: () => void } {
  let open = (): void => undefined;
  const passed = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { passed, open };
}

test("those that share go on side by side; one that is to be alone waits for them, and later ones for it", async () => {
  const mutex = new SharedMutex();
  const said: string[] = [];
  const [first, last] = [gate(), gate()];
  const both = gate();
  const one = mutex.shared(async () => {
    both.open();
    await first.passed;
    said.push("one");
  });
  const two = mutex.shared(async () => {
    // Ends only because the first has begun.
    await both.passed;
    said.push("two");
  });
  const alone = mutex.alone(async () => {
    said.push("alone");
    await last.passed;
    said.push("alone no more");
  });
  const later = mutex.shared(async () => {
    await Promise.resolve();
    said.push("later");
  });
  await two;
  first.open();
  await one;
  last.open();
  await Promise.all([alone, later]);
  expect(said).toEqual(["two", "one", "alone", "alone no more", "later"]);
});

test("a failure is its caller's alone", async () => {
  const mutex = new SharedMutex();
  const fail = async (): Promise<void> => {
    await Promise.resolve();
    throw new Error("failed");
  };
  await expect(mutex.shared(fail)).rejects.toThrow("failed");
  await expect(mutex.alone(fail)).rejects.toThrow("failed");
  expect(await mutex.alone(async () => await Promise.resolve(1))).toBe(1);
  expect(await mutex.shared(async () => await Promise.resolve(2))).toBe(2);
});
