import { expect, test } from "vitest";
import { rawWords, textOfBytes } from "./raw-words.ts";

test.each([
  ["ascii", Buffer.from("abc"), "abc"],
  ["characters", Buffer.from("é你🙂\uFFFD"), "é你🙂\uFFFD"],
  ["a byte", Buffer.from([0xff, 0x41]), "\uDCFFA"],
  ["a character cut short", Buffer.from([0x41, 0xe4, 0xbd]), "A\uDCE4\uDCBD"],
  ["a surrogate in UTF-8", Buffer.from([0xed, 0xb3, 0xbf]), "\uDCED\uDCB3\uDCBF"],
])("%s", (_name, bytes, text) => {
  expect(textOfBytes(bytes)).toBe(text);
});

test("the last words of the line, without the launcher's colon; others stay", () => {
  const line = Buffer.concat([
    Buffer.from("node\0start.cjs\0:exec\0:"),
    Buffer.from([0xff]),
    Buffer.from("\0:::\0"),
  ]);
  expect(rawWords(["exec", "\uFFFD", "::"], line)).toEqual(["exec", "\uDCFF", "::"]);
  expect(rawWords(["other"], line)).toEqual(["other"]);
});
