import { array, assert, constantFrom, nat, property, string } from "fast-check";
import { expect, test } from "vitest";
import { Replacer, replaceText, type Replacement } from "./replace.ts";

const pair = (from: string, to: string): Replacement => ({
  from: Buffer.from(from),
  to: Buffer.from(to),
});

test.each<[string, string, [string, string][], string]>([
  ["several in a row", "abab", [["ab", "x"]], "xx"],
  [
    "the longer one",
    "abc",
    [
      ["ab", "1"],
      ["abc", "2"],
    ],
    "2",
  ],
  [
    "the earlier one",
    "xabc",
    [
      ["abc", "1"],
      ["xa", "2"],
    ],
    "2bc",
  ],
  ["what has been put in is not looked at again", "a", [["a", "aa"]], "aa"],
  ["one that begins again within itself", "aaab", [["aab", "x"]], "ax"],
  ["nothing to look for", "a", [["", "x"]], "a"],
])("%s", (_, text, pairs, expected) => {
  const replacements = pairs.map(([from, to]) => pair(from, to));
  expect(replaceText(text, replacements)).toBe(expected);
});

test("pieces make no difference, and only what may be the begin of a match is held back", () => {
  const words = constantFrom("a", "b", "ab", "aab", "secret", "sec", "\0");
  assert(
    property(
      array(words),
      array(string({ minLength: 1, maxLength: 4 })),
      nat(7),
      (text, more, size) => {
        const replacements = [
          pair("aab", "1"),
          pair("secret", "22"),
          ...more.map((from) => pair(from, "3")),
        ];
        const whole = text.join("");
        const replacer = new Replacer(replacements);
        const bytes = Buffer.from(whole);
        let out = "";
        for (let at = 0; at < bytes.length; at += size + 1) {
          out += replacer.push(bytes.subarray(at, at + size + 1)).toString("latin1");
        }
        out += replacer.end().toString("latin1");
        expect(out).toBe(replaceText(bytes.toString("latin1"), replacements));
      },
    ),
  );
  const one = new Replacer([pair("secret", "x")]);
  expect(one.push(Buffer.from("no sec")).toString()).toBe("no ");
  expect(one.push(Buffer.from("ond ")).toString()).toBe("second ");
});
