/** The closing line of `npm test` must not hide a failure. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { tallyDirectory, tallyGo, tallyVitest, worthAgain } from "../scripts/tally.ts";

test("vitest: a file that cannot be loaded is a failure", () => {
  const report = {
    testResults: [
      { status: "passed", assertionResults: [{ status: "passed" }, { status: "pending" }] },
      { status: "failed", assertionResults: [] },
      { status: "failed", assertionResults: [{ status: "failed" }, { status: "passed" }] },
    ],
  };
  expect(tallyVitest(JSON.stringify(report))).toMatchObject({ passed: 2, failed: 2, skipped: 1 });
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

/** A vitest report of files with one test each. */
function report(files: Record<string, "passed" | "failed">): string {
  return JSON.stringify({
    testResults: Object.entries(files).map(([name, status]) => ({
      name,
      status,
      assertionResults: [{ status, fullName: "it", failureMessages: ["no\nat line 1"] }],
    })),
  });
}

test("a file that passes the second time is named; one that fails twice fails", async () => {
  const dir = await mkdtemp(join(tmpdir(), "vmsan-tally-"));
  try {
    await writeFile(join(dir, "steps"), "e2e 1 9\n");
    const first = report({ "a.ts": "passed", "b.ts": "failed", "c.ts": "failed" });
    await writeFile(join(dir, "e2e.vitest.json"), first);
    await writeFile(
      join(dir, "e2e-again.vitest.json"),
      report({ "b.ts": "passed", "c.ts": "passed" }),
    );
    const unsteady = "unsteady, passed the second time: b.ts: it: no";
    let total = tallyDirectory(dir);
    expect(total).toMatchObject({ passed: 3, failed: 0, skipped: 0 });
    expect(total.lines).toContain(unsteady);
    await writeFile(
      join(dir, "e2e-again.vitest.json"),
      report({ "b.ts": "passed", "c.ts": "failed" }),
    );
    total = tallyDirectory(dir);
    expect(total).toMatchObject({ passed: 2, failed: 1 });
    expect(total.lines).toEqual(expect.arrayContaining([unsteady, "failed: c.ts: it: no"]));
  } finally {
    await rm(dir, { recursive: true });
  }
});

test("many failing files are not run again", () => {
  expect(worthAgain(report({ a: "failed", b: "passed", c: "failed" }))).toEqual(["a", "c"]);
  expect(worthAgain(report({ a: "failed", b: "failed", c: "failed", d: "failed" }))).toEqual([]);
});
