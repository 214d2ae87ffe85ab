/** The directive `escape`, at the places where Docker documents that it is one. */
import { expect, test } from "vitest";
import { escapeOf } from "./escape.ts";

test.each([
  ["# escape=`\nFROM x", "`"],
  ["#escape=`", "`"],
  ["#\tEsCaPe = ` \r\nFROM x", "`"],
  ["\uFEFF# escape=`\nFROM x", "`"],
  ["# syntax=docker/dockerfile:1\n# check=skip=all\n# escape=`\nFROM x", "`"],
  ["# escape=\\\n# escape=`\nFROM x", "\\"],
  ["FROM x\n# escape=`", "\\"],
  ["\n# escape=`\nFROM x", "\\"],
  ["# about this file\n# escape=`\nFROM x", "\\"],
  ["# unknown=value\n# escape=`\nFROM x", "\\"],
  [" # escape=`\nFROM x", "\\"],
  ["# escape=``\nFROM x", "\\"],
  ["FROM x\nRUN <<E\n# escape=`\nE", "\\"],
  [`# syntax=${"x ".repeat(500_000)}\n# escape=\``, "`"],
  ["", "\\"],
])("%j has %j", (dockerfile, escape) => {
  expect(escapeOf(dockerfile)).toBe(escape);
});
