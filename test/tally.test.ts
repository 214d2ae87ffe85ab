/** The closing line of `npm test` must not hide a failure. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { tallyDirectory, tallyGo, tallyVitest } from "../scripts/tally.ts";

test("vitest: a file that cannot be loaded is a failure", () => {
  const report = {
    testResults: [
      { status: "passed", assertionResults: [{ status: "passed" }, { status: "pending" }] },
      { status: "failed", assertionResults: [] },
      { status: "failed", assertionResults: [{ status: "failed" }, { status: "passed" }] },
    ],
  };
  expect(tallyVitest(JSON.stringify(report))).toEqual({ passed: 2, failed: 2, skipped: 1 });
});

test("go: a package that does not build, and one that panics outside of a test, are failures", () => {
  const lines = [
    { Action: "build-output", ImportPath: "a", Output: "a.go:1: no\n" },
    { Action: "build-fail", ImportPath: "a" },
    { Action: "fail", Package: "a" },
    { Action: "pass", Package: "b", Test: "T1" },
    { Action: "output", Package: "b", Test: "T2", Output: "why\n" },
    { Action: "fail", Package: "b", Test: "T2" },
    { Action: "fail", Package: "b" },
    { Action: "skip", Package: "c", Test: "T3" },
    { Action: "pass", Package: "c" },
  ].map((event) => JSON.stringify(event));
  const tally = tallyGo(["go: something", ...lines].join("\n"));
  expect(tally).toMatchObject({ passed: 1, failed: 2, skipped: 1 });
  expect(tally.output).toContain("a.go:1: no");
  expect(tally.output).toContain("why");
});

test("a step that fails without a failed test counts; so does a report cut short", async () => {
  const dir = await mkdtemp(join(tmpdir(), "vmsan-tally-"));
  try {
    await writeFile(join(dir, "steps"), "types 0 3\nunit 1 5\ne2e 124 9\nlint 1 1\n");
    const good = { testResults: [{ status: "passed", assertionResults: [{ status: "passed" }] }] };
    await writeFile(join(dir, "unit.vitest.json"), JSON.stringify(good));
    await writeFile(join(dir, "e2e.vitest.json"), '{"testResults": [');
    const total = tallyDirectory(dir);
    expect(total).toMatchObject({ passed: 2, failed: 3, skipped: 0 });
  } finally {
    await rm(dir, { recursive: true });
  }
});
