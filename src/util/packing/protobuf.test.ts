import { expect, test } from "vitest";
import { Message } from "./protobuf.ts";

test("a message of very many fields of one number is read in one go", () => {
  // With a list that is copied for each field, this takes minutes.
  const count = 500_000;
  const bytes = Buffer.alloc(2 * count, Buffer.from([8, 1]));
  bytes[bytes.length - 1] = 7;
  expect(new Message(bytes).number(1)).toBe(7n);
});
