import { expect, test } from "vitest";
import { logLimitsOf } from "./limits.ts";

test("limits as `--log-opt` gives them", () => {
  const limits = (Type: string, Config: Record<string, string> = {}): unknown =>
    logLimitsOf({ LogConfig: { Type, Config } });
  expect(limits("none")).toBeUndefined();
  expect(limits("json-file", { "max-size": "10m", "max-file": "3" })).toEqual({
    fileBytes: 10 << 20,
    files: 3,
  });
  expect(limits("local", { "max-size": "1k" })).toEqual({ fileBytes: 512, files: 2 });
  expect(() => limits("json-file", { "max-size": "many" })).toThrow("max-size");
  expect(() => limits("json-file", { "max-size": "1m", "max-file": "0" })).toThrow("max-file");
});
