import { expect, test } from "vitest";
import { DetachKeys } from "./terminal.ts";

test("ctrl-p ctrl-q detaches, also when they come apart", () => {
  const keys = new DetachKeys();
  expect(keys.filter(Buffer.from("ab\u0010")).toString()).toBe("ab");
  expect(keys.filter(Buffer.from("\u0011never")).toString()).toBe("");
  expect(keys.detached).toBe(true);
});

test("ctrl-p before another key is passed on", () => {
  const keys = new DetachKeys();
  expect(keys.filter(Buffer.from("\u0010\u0010x")).toString()).toBe("\u0010\u0010x");
  expect(keys.detached).toBe(false);
});
