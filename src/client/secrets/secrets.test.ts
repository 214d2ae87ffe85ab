/** What people write as a secret, and that what is wrong with it is said without saying it. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { VmsanError } from "../../model/errors.ts";
import { parseSecretWord, secretRequests } from "./secrets.ts";

let dir = "";
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "vmsan-secrets-"));
  process.env["VMSAN_TEST_SECRET"] = "from the environment";
});
afterAll(() => {
  rmSync(dir, { recursive: true });
  delete process.env["VMSAN_TEST_SECRET"];
});

test.each([
  ["T=env", { name: "T", env: "T" }],
  ["T=env@a.test", { name: "T", env: "T", domains: ["a.test"] }],
  ["T=env:OTHER@a.test,*.b.test", { name: "T", env: "OTHER", domains: ["a.test", "*.b.test"] }],
  ["T=file:/run/key@a.test:8443", { name: "T", file: "/run/key", domains: ["a.test:8443"] }],
  ["T=file:./a@b/key@http://a.test", { name: "T", file: "./a@b/key", domains: ["http://a.test"] }],
  ["T=file:./a@b/key", { name: "T", file: "./a@b/key" }],
  ["T=env@a.test#header", { name: "T", env: "T", domains: ["a.test"], places: ["header"] }],
  ["T=env#header,body", { name: "T", env: "T", places: ["header", "body"] }],
])("%s", (word, expected) => {
  expect(parseSecretWord(word)).toEqual(expected);
});

test.each([
  ["T=hunter2@a.test"],
  ["T=env-hunter2"],
  ["T=file:"],
  ["T"],
  ["=hunter2"],
  ["hunter2-=env"],
  ["T=file:/none@a.test"],
  ["T=env:VMSAN_TEST_NOT_THERE@a.test"],
  ["T=env:VMSAN_TEST_SECRET@a b"],
  ["T=env:VMSAN_TEST_SECRET@a.test:53"],
  ["T=env:VMSAN_TEST_SECRET@a.test#cookie"],
])("%s is refused, and what may be a value is not repeated", (word) => {
  let error: unknown;
  try {
    secretRequests([word]);
  } catch (caught) {
    error = caught;
  }
  expect(error).toBeInstanceOf(VmsanError);
  expect(JSON.stringify(error)).not.toMatch(/hunter2|from the environment/);
});

test("values come from the environment and from files, without the last line's end", () => {
  const file = join(dir, "key");
  writeFileSync(file, "of a file\r\n");
  const words = ["A=env:VMSAN_TEST_SECRET@a.test", `B=file:${file}@a.test`];
  expect(secretRequests([...words, { name: "C", value: "given", domains: [] }])).toEqual([
    { name: "A", value: "from the environment", domains: ["a.test"] },
    { name: "B", value: "of a file", domains: ["a.test"] },
    { name: "C", value: "given", domains: [] },
  ]);
  writeFileSync(file, Buffer.from([0xff, 0xfe]));
  expect(() => secretRequests([`B=file:${file}`])).toThrow(/B from/);
  expect(() => secretRequests([{ name: "C", value: "given", env: "X" }])).toThrow(/C/);
});
