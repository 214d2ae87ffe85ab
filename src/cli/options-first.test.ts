import { expect, test } from "vitest";
import { OptionsFirst } from "./options-first.ts";

test.each([
  [["--", "node:22"], true],
  [["--name", "web", "--", "node:22", "-x"], true],
  [["node:22"], false],
  [["node:22", "--", "node"], false],
  [["--name", "web"], false],
])("%j: whether its first argument stands behind --", (words, separated) => {
  const target = new OptionsFirst("create")
    .arguments("[command...]")
    .option("--name <name>")
    .passThroughOptions();
  const { operands } = target.parseOptions(words);
  expect(target.isSeparated).toBe(separated);
  expect(operands[0]).toBe(words.includes("node:22") ? "node:22" : undefined);
});
