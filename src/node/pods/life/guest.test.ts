import { expect, test } from "vitest";
import { terminationMessage } from "./guest.ts";

test("of a termination message without an end no more is read than is told", async () => {
  let sent = 0;
  const text = await terminationMessage(
    {
      readFile: async (_path, onData, options) => {
        // With the rights of who has run there, and not through a link.
        expect(options).toMatchObject({ noFollow: true });
        expect(options).not.toHaveProperty("user");
        for (; sent < 1000; sent += 1) {
          options?.signal?.throwIfAborted();
          await onData(Buffer.alloc(1024, "a"));
        }
      },
    },
    "/said",
  );
  expect(text).toBe("a".repeat(4096));
  expect(sent).toBeLessThan(10);
});
