/** A child's peak is its own, however much memory its parent had. */
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { expect, test } from "vitest";
import { peakBytes } from "./peak-memory.ts";

test("the peak of this process, and a smaller one of a child", () => {
  const before = peakBytes();
  const ballast = Buffer.alloc(300 * 2 ** 20, 1);
  const own = peakBytes();
  expect(own).toBeGreaterThan(ballast.length);
  expect(own).toBeGreaterThanOrEqual(before);
  const module = join(import.meta.dirname, "peak-memory.ts");
  const print = `import(${JSON.stringify(module)}).then((m) => console.log(m.peakBytes()))`;
  const child = Number(execFileSync(process.execPath, ["-e", print]).toString());
  expect(child).toBeGreaterThan(10 * 2 ** 20);
  expect(child).toBeLessThan(ballast.length);
});
