/**
 * E2B's own JavaScript tests against a gateway with real guests: `node scripts/e2b-suite.ts CHECKOUT [FILTER…]`.
 * CHECKOUT is a checkout of E2B's repository; nothing is fetched, and nothing of it is kept. The published npm
 * package stands in for the source that the tests import. Without filters docs/e2b-compat.md is written.
 */
import { spawn } from "node:child_process";
import { cp, mkdtemp, readFile, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, relative, resolve } from "node:path";
import { Keys } from "../src/gateway/access/keys.ts";
import { startGateway } from "../src/gateway/gateway.ts";
import { layoutOf, vmsanDir } from "../src/util/paths.ts";

/** Why a test is not run here, or does not pass; the first that matches `FILE > TEST` counts. */
const REASONS: [RegExp, string][] = [
  [
    /^sandbox\/(network|internetAccess|networkTransform|egressProxy)\.test/,
    "asks hosts of the internet",
  ],
  [/^sandbox\/host\.test|http server|auto-resume wakes/, "needs a wildcard domain with TLS"],
  [/^sandbox\/git\/(clone|sync)\.test/, "asks hosts of the internet"],
  [/^template\/tags\.test/, "written for mocked answers"],
  [/^template\//, "builds from images of public registries"],
];

const [checkout, ...filters] = process.argv.slice(2);
if (checkout === undefined) throw new Error("usage: node scripts/e2b-suite.ts CHECKOUT [FILTER…]");
const root = resolve(import.meta.dirname, "..");
const source = join(resolve(checkout), "packages/js-sdk/tests");

/** Why a file of tests says nothing of a server; undefined when it does. */
function besides(name: string, text: string): string | undefined {
  if (!/^(api|sandbox|template)\//.test(name)) return "tests the SDK alone";
  if (/from 'msw/.test(text)) return "answers its own requests";
  const known = /src(?:\/(?:index|errors|sandbox\/filesystem))?(?:\.js)?'/;
  const own = [...text.matchAll(/from '[./]+\/(src[^']*')/g)].some(
    ([, path = ""]) => !known.test(path),
  );
  return own ? "imports the SDK's own source" : undefined;
}

interface Result {
  assertionResults: {
    fullName: string;
    status: "passed" | "failed" | "pending" | "skipped" | "todo" | "disabled";
    failureMessages: string[];
  }[];
  message: string;
  name: string;
}

/** Run one program to its end. @returns its status */
async function runTests(cwd: string, names: string[], env: Record<string, string>): Promise<void> {
  const program = join(root, "node_modules/.bin/vitest");
  const child = spawn(program, ["run", "--reporter=json", "--outputFile=report.json", ...names], {
    cwd,
    stdio: ["ignore", "inherit", "inherit"],
    env: { ...process.env, ...env },
  });
  await new Promise((done, fail) => child.once("error", fail).once("exit", done));
}

const scratch = await mkdtemp(join(tmpdir(), "vmsan-e2b-suite-"));
const dir = vmsanDir();
const gateway = await startGateway({ dir, listen: "127.0.0.1:0", domains: ["sandbox.localhost"] });
const keys = new Keys(layoutOf(dir).gateway);
const { key, text } = await keys.create({ project: "e2b-suite" });
try {
  await cp(source, join(scratch, "tests"), { recursive: true });
  await symlink(join(root, "node_modules"), join(scratch, "node_modules"));
  await writeFile(
    join(scratch, "vitest.config.ts"),
    `import { defineConfig } from "vitest/config";
const sdk = ${JSON.stringify(join(root, "node_modules/e2b/dist/index.mjs"))};
export default defineConfig({
  resolve: { alias: [{ find: /^(?:\\.\\.\\/)+src(?:\\/(?:index|errors|sandbox\\/filesystem))?(?:\\.js)?$/, replacement: sdk }] },
  test: { testTimeout: 120_000, hookTimeout: 120_000, maxWorkers: 1, isolate: true },
});
`,
  );
  const all = (await readdir(join(scratch, "tests"), { recursive: true }))
    .filter((name) => name.endsWith(".test.ts"))
    .toSorted();
  const chosen: string[] = [];
  const left: [string, string][] = [];
  for (const name of all) {
    const why = besides(name, await readFile(join(source, name), "utf8"));
    if (why !== undefined) left.push([name, why]);
    else if (filters.length === 0 || filters.some((filter) => name.includes(filter)))
      chosen.push(name);
  }
  await runTests(
    scratch,
    chosen.map((name) => `tests/${name}`),
    { E2B_API_URL: gateway.url, E2B_SANDBOX_URL: gateway.url, E2B_API_KEY: `e2b_${text}` },
  );
  const report = JSON.parse(await readFile(join(scratch, "report.json"), "utf8")) as {
    testResults: Result[];
  };
  const rows: string[] = [];
  const failures: string[] = [];
  let passed = 0;
  let failed = 0;
  for (const { name, assertionResults, message } of report.testResults) {
    const file = relative(join(scratch, "tests"), name);
    const count = (status: string): number =>
      assertionResults.filter((one) => one.status === status).length;
    passed += count("passed");
    failed += count("failed");
    rows.push(
      `| ${file} | ${count("passed")} | ${count("failed")} | ${assertionResults.length - count("passed") - count("failed")} |`,
    );
    if (assertionResults.length === 0) failures.push(`| ${file} | ${message.split("\n")[0]} |`);
    for (const { fullName, status, failureMessages } of assertionResults) {
      if (status !== "failed") continue;
      const why =
        REASONS.find(([pattern]) => pattern.test(`${file} > ${fullName}`))?.[1] ??
        `not explained: ${(failureMessages[0] ?? "").split("\n")[0]?.slice(0, 200)}`;
      failures.push(
        `| ${file} > ${fullName.replaceAll("|", "\\|")} | ${why.replaceAll("|", "\\|")} |`,
      );
    }
  }
  const { version } = JSON.parse(
    await readFile(join(root, "node_modules/e2b/package.json"), "utf8"),
  ) as { version: string };
  const page = `# E2B's own tests

Written by \`node scripts/e2b-suite.ts CHECKOUT\`: E2B's JavaScript tests, unmodified, with the npm package e2b ${version} against
\`vmsan serve\` and guests that really boot. ${passed} of ${passed + failed} passed.

| File | passed | failed | left out by itself |
|---|---|---|---|
${rows.toSorted().join("\n")}

## Not passed

| Test | Why |
|---|---|
${failures.toSorted().join("\n")}

## Not run

| File | Why |
|---|---|
${left.map(([name, why]) => `| ${name} | ${why} |`).join("\n")}
`;
  if (filters.length === 0) await writeFile(join(root, "docs/e2b-compat.md"), page);
  else console.log(page);
} finally {
  await keys.remove(key.id);
  await gateway.close();
  await rm(scratch, { recursive: true, force: true });
}
