import { expect, test } from "vitest";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { createInflater } from "./inflater.ts";

test.each(["gzip", "zstd", "none"] as const)(
  "this Node has the inner interface that decompressing %s in place uses",
  (compression) => {
    const inflater = createInflater(compression);
    if (inflater === undefined) throw new Error("no: layers are decompressed by public streams");
    const text = Buffer.from("some text, some text, some text");
    const input =
      compression === "none"
        ? text
        : compression === "gzip"
          ? gzipSync(text)
          : zstdCompressSync(text);
    const output = Buffer.alloc(100);
    expect(inflater.step(input, 0, input.length, output, 10, false)).toEqual({
      consumed: input.length,
      produced: text.length,
    });
    expect(output.subarray(10, 10 + text.length).equals(text)).toBe(true);
    inflater.close();
  },
);

test.each(["gzip", "zstd"] as const)("what is not %s is refused", (compression) => {
  const inflater = createInflater(compression);
  expect(() => inflater?.step(Buffer.alloc(50, 7), 0, 50, Buffer.alloc(100), 0, false)).toThrow();
  inflater?.close();
});
