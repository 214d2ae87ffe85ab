import { Readable } from "node:stream";
import { expect, test } from "vitest";
import { exactly } from "./files.ts";

async function taken(parts: string[], size: number): Promise<string> {
  let all = "";
  for await (const part of exactly(Readable.from(parts.map((one) => Buffer.from(one))), size))
    all += part.toString();
  return all;
}

test("of a file that grows so much is sent as was announced, of one that shrinks the rest is missing", async () => {
  expect(await taken(["abc", "def"], 6)).toBe("abcdef");
  expect(await taken(["abc", "def\r\n\r\nHTTP/1.1 200 OK", "more"], 6)).toBe("abcdef");
  expect(await taken(["abcdef", "more"], 6)).toBe("abcdef");
  await expect(taken(["abc"], 6)).rejects.toThrow("3 bytes before");
  async function* endless(): AsyncGenerator<Buffer> {
    for (;;) yield await Promise.resolve(Buffer.from("x"));
  }
  let count = 0;
  for await (const part of exactly(endless(), 10)) count += part.length;
  expect(count).toBe(10);
});
