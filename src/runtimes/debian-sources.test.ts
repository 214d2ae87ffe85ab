import { describe, expect, test } from "vitest";
import { linesFrom, suiteFor } from "./debian-sources.ts";
import type { Release } from "./debian-sources.ts";
import { builtinRuntimes } from "./catalogue.ts";

const bookworm: Release = { id: "debian", codename: "bookworm", version: "12" };
const recipe = builtinRuntimes["builder"]?.recipe;
if (recipe?.kind !== "debian") throw new Error("the builder has another recipe");

describe("the release of a recipe", () => {
  test.each<[string, Release, string]>([
    ["an older host's is not taken", bookworm, "trixie"],
    ["the oldest that will do", { id: "debian", codename: "trixie", version: "13" }, "trixie"],
    ["a newer one", { id: "debian", codename: "forky", version: "14" }, "forky"],
    ["one without a number", { id: "debian", codename: "sid", version: "" }, "sid"],
    ["another distribution's", { id: "ubuntu", codename: "jammy", version: "22.04" }, "noble"],
    ["a newer of those", { id: "ubuntu", codename: "oracular", version: "24.10" }, "oracular"],
    ["one that nothing is known of", { id: "mint", codename: "xia", version: "22" }, "xia"],
  ])("%s", (_what, host, suite) => {
    expect(suiteFor(recipe, host)).toBe(suite);
  });

  test("one that is named is taken whatever the host has", () => {
    expect(suiteFor({ ...recipe, suite: "bookworm" }, { ...bookworm, version: "11" })).toBe(
      "bookworm",
    );
  });
});

describe("sources", () => {
  const targets = [
    "http://192.0.2.1/debian/ bookworm main",
    "http://192.0.2.1/debian/ bookworm-updates main",
    "http://192.0.2.1/security/ bookworm-security main",
    "http://192.0.2.1/debian/ bookworm contrib",
    "http://192.0.2.2/tools/ nodistro main",
    "file:relative bookworm main",
    "",
  ].join("\n");

  test("the host's own, with its updates", () => {
    expect(linesFrom(targets, bookworm, "bookworm", "[signed-by=/k] ")).toEqual([
      "deb [signed-by=/k] http://192.0.2.1/debian/ bookworm main",
      "deb [signed-by=/k] http://192.0.2.1/debian/ bookworm-updates main",
      "deb [signed-by=/k] http://192.0.2.1/security/ bookworm-security main",
    ]);
  });

  test("another release is looked for where the host's is", () => {
    expect(linesFrom(targets, bookworm, "trixie", "")).toEqual([
      "deb http://192.0.2.1/debian/ trixie main",
      "deb http://192.0.2.1/debian/ trixie-updates main",
      "deb http://192.0.2.1/security/ trixie-security main",
    ]);
  });

  test("unless the host has sources of it", () => {
    const more = `${targets}http://192.0.2.3/debian/ trixie main\n`;
    expect(linesFrom(more, bookworm, "trixie", "")).toEqual([
      "deb http://192.0.2.3/debian/ trixie main",
    ]);
  });

  test("nothing is known of a host without apt's", () => {
    expect(linesFrom("", bookworm, "trixie", "")).toEqual([]);
  });
});
