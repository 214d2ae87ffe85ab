import { expect, test } from "vitest";
import { asLine, entriesOf, selectEntries } from "./logs.ts";

const start = Date.parse("2026-01-01T00:00:00Z");
const all = entriesOf(
  "[    0.000000] Linux version 6\r\n[    1.500000] \u001B[31mred\u001B[0m text\nplain\n\n[   12.250000] Kernel panic - not syncing\n",
  start,
);

test("lines have the kernel's times, or those of the line before", () => {
  expect(all.map(({ timestamp, level, message }) => [timestamp.slice(17), level, message])).toEqual(
    [
      ["00.000Z", "info", "Linux version 6"],
      ["01.500Z", "info", "red text"],
      ["01.500Z", "info", "plain"],
      ["12.250Z", "error", "Kernel panic - not syncing"],
    ],
  );
});

test("a line for the older path is an object of level, logger and message, in JSON", () => {
  const [, red] = all.map(asLine) as { line: string }[];
  expect(JSON.parse(red?.line ?? "")).toEqual({
    level: "info",
    logger: "console",
    message: "red text",
  });
});

test("a query selects by time, level, words and number, in both directions", () => {
  const of = (query: string): string[] =>
    selectEntries(all, new URLSearchParams(query)).map(({ message }) => message);
  expect(of("")).toHaveLength(4);
  expect(of(`start=${start + 1500}&limit=2`)).toEqual(["red text", "plain"]);
  expect(of("level=error")).toEqual(["Kernel panic - not syncing"]);
  expect(of("search=plain")).toEqual(["plain"]);
  expect(of(`direction=backward&cursor=${start + 1500}&limit=1`)).toEqual(["plain"]);
  // What is no number and no level is as if it had not been said.
  expect(of("limit=x&level=nothing")).toHaveLength(4);
});
