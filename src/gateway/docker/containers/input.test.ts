import { expect, test } from "vitest";
import { parseFilters } from "../http/filters.ts";
import { compile } from "../http/route.ts";
import { familiar, joinName, repositoryOf, withTag } from "../images/names.ts";
import { routeFor } from "../routes/all.ts";
import { goMode } from "./archive.ts";
import { DetachScanner, parseDetachKeys } from "./input.ts";
import { humanDuration } from "./view.ts";

test("the keys that leave a terminal, also in pieces, and what only looks like them", () => {
  expect([...parseDetachKeys("")]).toEqual([16, 17]);
  expect([...parseDetachKeys("ctrl-a,d")]).toEqual([1, 100]);
  expect([...parseDetachKeys("nonsense")]).toEqual([16, 17]);
  const typed = (...pieces: number[][]): string => {
    const scanner = new DetachScanner(parseDetachKeys(""));
    let said = "";
    for (const piece of pieces) {
      const { rest, left } = scanner.scan(Buffer.from(piece));
      said += rest.toString("latin1");
      if (left) return `${said}|`;
    }
    return said;
  };
  expect(typed([97, 16], [17, 98])).toBe("a|");
  expect(typed([16], [97])).toBe("\u0010a");
  expect(typed([16, 16, 17])).toBe("\u0010|");
  expect(typed([97, 98])).toBe("ab");
});

test("filters as Go and as JavaScript write them", () => {
  const labels = { a: "1", b: "" };
  expect(parseFilters('{"label":{"a=1":true,"b":true}}').allowsLabels(labels)).toBe(true);
  expect(parseFilters('{"label":["a=2"]}').allowsLabels(labels)).toBe(false);
  expect(parseFilters('{"label":["toString"]}').allowsLabels(labels)).toBe(false);
  expect(parseFilters('{"label!":["a"]}').allowsLabels(labels)).toBe(false);
  expect(parseFilters("").allows("name", () => false)).toBe(true);
  expect(parseFilters('{"name":[]}').allows("name", () => false)).toBe(true);
  expect(parseFilters('{"name":{"x":false}}').allows("name", () => false)).toBe(true);
  expect(() => parseFilters("{")).toThrow("invalid filters");
  expect(() => parseFilters('{"name":["x"]}').only(["label"])).toThrow("invalid filter 'name'");
});

test("names of images", () => {
  expect(familiar("docker.io/library/node:22")).toBe("node:22");
  expect(familiar("docker.io/me/app:1")).toBe("me/app:1");
  expect(familiar("docker.io/library/a/b:1")).toBe("library/a/b:1");
  expect(familiar("ghcr.io/x/y:1")).toBe("ghcr.io/x/y:1");
  expect(withTag("localhost:5000/x")).toBe("localhost:5000/x:latest");
  expect(repositoryOf("localhost:5000/x:1")).toBe("localhost:5000/x");
  expect(joinName("a", `sha256:${"0".repeat(64)}`)).toBe(`a@sha256:${"0".repeat(64)}`);
});

test("routes: names with slashes, and no route behind another", () => {
  expect(routeFor("GET", "/images/localhost:5000/a/b:1/json")?.params).toEqual({
    name: "localhost:5000/a/b:1",
  });
  expect(routeFor("POST", "/images/h:5/n/push")?.route.path).toBe("/images/:name/push");
  expect(routeFor("GET", "/containers/json")?.route.path).toBe("/containers/json");
  expect(routeFor("GET", "/containers/a/b/json")).toBeUndefined();
  expect(
    compile({
      method: "GET",
      path: "/a.b/:id",
      says: "works",
      run: async () => undefined,
    }).pattern.test("/axb/1"),
  ).toBe(false);
});

test("modes as Go has them, durations as `docker ps` says them", () => {
  expect(goMode({ type: "dir", mode: 0o1777 })).toBe(2 ** 31 + 2 ** 20 + 0o777);
  expect(goMode({ type: "symlink", mode: 0o777 })).toBe(2 ** 27 + 0o777);
  expect(goMode({ type: "file", mode: 0o4755 })).toBe(2 ** 23 + 0o755);
  const minutes = 60_000;
  expect(
    [0, 1_000, 5_000, minutes, 5 * minutes, 60 * minutes, 50 * 60 * minutes].map(humanDuration),
  ).toEqual([
    "Less than a second",
    "1 second",
    "5 seconds",
    "About a minute",
    "5 minutes",
    "About an hour",
    "2 days",
  ]);
});
