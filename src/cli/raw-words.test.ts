import { expect, test } from "vitest";
import { variableOf } from "./environment.ts";
import { rawWords } from "./raw-words.ts";

test("the last words of the line, without the launcher's colon; others stay", () => {
  const line = Buffer.concat([
    Buffer.from("node\0start.cjs\0:exec\0:"),
    Buffer.from([0xff]),
    Buffer.from("\0:::\0"),
  ]);
  expect(rawWords(["exec", "\uFFFD", "::"], line)).toEqual(["exec", "\uDCFF", "::"]);
  expect(rawWords(["other"], line)).toEqual(["other"]);
});

test("variables: bytes in the name and in the value; what was changed since holds", () => {
  const given = (): Buffer =>
    Buffer.concat([
      Buffer.from("PLAIN=a\0V="),
      Buffer.from([0xe4, 0xbd, 0x3d]),
      Buffer.from("\0N"),
      Buffer.from([0xff]),
      Buffer.from("=x\0"),
    ]);
  const env = { PLAIN: "b", V: "\uFFFD=", LATER: "\uFFFD" };
  expect(variableOf("PLAIN", env, given)).toBe("b");
  expect(variableOf("V", env, given)).toBe("\uDCE4\uDCBD=");
  expect(variableOf("V", { V: "\uFFFD" }, given)).toBe("\uFFFD");
  expect(variableOf("LATER", env, given)).toBe("\uFFFD");
  expect(variableOf("N\uDCFF", env, given)).toBe("x");
  expect(variableOf("ABSENT\uDCFF", env, given)).toBeUndefined();
});
