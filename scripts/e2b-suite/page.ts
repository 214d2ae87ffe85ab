/** The page of results, written of what all runs gave. */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { FileResult } from "./results.ts";

/** Why a test does not pass, and whether it needs hosts outside; the first that matches `FILE > TEST` counts. */
const REASONS: { pattern: RegExp; why: string; outside?: boolean }[] = [];

interface Kept {
  version: string;
  left: [string, string][];
  files: Record<string, FileResult>;
}

function cell(text: string): string {
  return text.replaceAll("|", "\\|").replaceAll(/\s+/g, " ");
}

function byName([a]: [string, unknown], [b]: [string, unknown]): number {
  return a < b ? -1 : 1;
}

/** The part of one language. */
function section({ version, left, files }: Kept): string {
  const rows: string[] = [];
  const failures: string[] = [];
  const count = { passed: 0, failed: 0, outside: 0 };
  for (const [file, { passed, failed, skipped }] of Object.entries(files).toSorted(byName)) {
    if (passed.length + failed.length === 0) continue;
    rows.push(`| ${file} | ${passed.length} | ${failed.length} | ${skipped} |`);
    count.passed += passed.length;
    for (const { test, message } of failed) {
      const known = REASONS.find(({ pattern }) => pattern.test(`${file} > ${test}`));
      count[known?.outside === true ? "outside" : "failed"] += 1;
      const why = known?.why ?? `not explained: ${message}`;
      failures.push(`| ${cell(`${file} > ${test}`)} | ${cell(why)} |`);
    }
  }
  const inside = count.passed + count.failed;
  const percent = inside === 0 ? 0 : Math.floor((count.passed / inside) * 1000) / 10;
  const reasons = new Map<string, string[]>();
  for (const [name, why] of left) reasons.set(why, [...(reasons.get(why) ?? []), name]);
  return `## ${version}

${count.passed} of the ${inside} tests that need no host outside pass (${percent} %); ${count.outside} others need one.

| File | passed | failed | left out by itself |
|---|---|---|---|
${rows.join("\n")}

Not passed:

| Test | Why |
|---|---|
${failures.join("\n")}

Not run: ${[...reasons].map(([why, names]) => `${why}: ${names.join(", ")}`).join(". ")}.
`;
}

/** Write the page. @param path of the page @param kept directory of the results, a file each language */
export async function writePage(path: string, kept: string): Promise<void> {
  const parts: string[] = [];
  for (const language of ["js", "python"]) {
    const content = await readFile(join(kept, `${language}.json`), "utf8").catch(() => undefined);
    if (content !== undefined) parts.push(section(JSON.parse(content) as Kept));
  }
  await writeFile(
    path,
    `# E2B's own tests

Written by \`node scripts/e2b-suite.ts CHECKOUT js|python\`: the tests of E2B's repository, unmodified, with the
SDK's source beside them, against \`vmsan serve\` and guests that really boot. Under emulation a test has 120 s.

${parts.join("\n")}`,
  );
}
