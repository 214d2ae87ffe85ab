/** The page of results, written of what all runs gave. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { writeFileAtomic } from "../../src/util/atomic.ts";
import type { FileResult } from "./results.ts";
import { suites } from "./suites.ts";

/** Why a test does not pass, and whether it needs hosts outside; the first that matches `FILE > TEST: FAILURE` counts. */
const REASONS: { pattern: RegExp; why: string; outside?: boolean }[] = [
  {
    pattern: /filesystem_only.*!= '[0-9a-f-]{36}'/,
    why: "a reboot needs a guest, and this file was run without",
  },
  {
    pattern: /superchart/,
    why: "E2B's package for charts asks for a newer matplotlib than Debian 12 has",
  },
  {
    pattern: /(?:create.context.with.options|context_with_options)/,
    why: "works in /root: code runs as the user `user` here, as root with E2B",
  },
  {
    pattern: /Language (?:r|java) is not offered|^(?:cwd|env_vars).*(?:java|\br\b|\(R\))/,
    why: "R and Java are not in the runtime",
  },
  {
    pattern: /(?:auto.resume.wakes|http.server).*(?:502|to equal 200|ReadTimeout)/,
    why: "asks once, 5 s after Python's web server was started; in an emulated guest it listens later, and 502 tells so",
  },
  {
    pattern:
      /network.* > .*(?:[pP]ublic_?[tT]raffic|mask_?[rR]equest_?[hH]ost).*(?:502|exit status 1|exited with code 1)/,
    why: "asks once, 2 to 3 s after Python's web server was started; in an emulated guest on a busy machine it listens later, and 502 tells so",
  },
  {
    pattern: /test_watch.*: AssertionError: assert 2 == 3/,
    why: "counts the change of owner that envd's write makes; here a new file is its user's from the start",
  },
  {
    pattern: /ptyConnect|test_connect_to_pty/,
    why: "wants the first command's output 0.3 s after the shell was started; in an emulated guest it comes later",
  },
  {
    pattern: /scoped_env_vars.*127/,
    why: "runs `sudo`, which the machine whose processes stood for guests has not",
  },
  {
    pattern: /auto.pause.without.auto.resume.*(?:running|RUNNING)/,
    why: "wants it asleep 2 s after its end; writing the memory of an emulated guest on a busy machine takes longer",
  },
  {
    pattern: /test_ping_server.*502/,
    why: "Python's web server did not listen within the time that the test waits",
  },
  {
    pattern: /with completed long running process/,
    why: "waits 2 s after the waking for a file that the guest writes after `sleep 2`; not there yet on a busy machine, not looked into further",
  },
  {
    pattern: /driver fake|fake driver/,
    why: "pauses and snapshots need a guest, and this file was run without",
  },
  {
    pattern: /firewall.transform|firewall_transform/,
    why: "rules that change a sandbox's requests are not offered",
  },
  {
    pattern:
      /internetAccess|test_internet_access|network.* > .*(?:1\.1\.1\.1|specific|precedence|update_?[Nn]etwork)/,
    why: "asks hosts of the internet",
    outside: true,
  },
  {
    pattern:
      /^template\/(?:methods\/(?:makeSymlink|runCmd)|backgroundBuild|build\.test\.ts > .*(?:symlink|Symlink))/,
    why: "builds from an image of a public registry",
    outside: true,
  },
  {
    pattern: /template_a?sync\/(?:methods\/|test_background|test_build\.py > .*symlinks)/,
    why: "builds from an image of a public registry",
    outside: true,
  },
];

interface Kept {
  version: string;
  /** Names of all files of tests. */
  all: string[];
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
function section({ version, all, left, files }: Kept): string {
  const rows: string[] = [];
  const failures: string[] = [];
  const count = { passed: 0, failed: 0, outside: 0 };
  const guests = { passed: 0, all: 0 };
  const host = { passed: 0, all: 0 };
  const besides = new Set(left.map(([name]) => name));
  const run = Object.entries(files).filter(([name]) => !besides.has(name));
  for (const [file, { passed, failed, skipped, fake = false, when = "?" }] of run.toSorted(
    byName,
  )) {
    if (passed.length + failed.length === 0) continue;
    const where = fake ? host : guests;
    where.passed += passed.length;
    where.all += passed.length + failed.length;
    rows.push(
      `| ${file} | ${fake ? "fake driver" : "real guest"} | ${when} | ${passed.length} | ${failed.length} | ${skipped} |`,
    );
    count.passed += passed.length;
    for (const { test, message } of failed) {
      const known = REASONS.find((one) => one.pattern.test(`${file} > ${test}: ${message}`));
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

${count.passed} of the ${inside} tests that need no host outside pass (${percent} %); ${count.outside} others need one and
fail here. Of the ${guests.all} that ran in real guests, ${guests.passed} pass; of the ${host.all} that ran with the fake driver, which is quicker,
${host.passed} pass.

| File | where | when | passed | failed | left out by itself |
|---|---|---|---|---|---|
${rows.join("\n")}

Not passed:

| Test | Why |
|---|---|
${failures.join("\n")}

Without a result so far: ${all.filter((name) => !besides.has(name) && files[name] === undefined).join(", ") || "none"}.

Not run: ${[...reasons].map(([why, names]) => `${why}: ${names.join(", ")}`).join(". ")}.
`;
}

/** Write the page. @param path of the page @param kept directory of the results, a file each language */
export async function writePage(path: string, kept: string): Promise<void> {
  const parts: string[] = [];
  for (const language of Object.keys(suites)) {
    const content = await readFile(join(kept, `${language}.json`), "utf8").catch(() => undefined);
    if (content !== undefined) parts.push(section(JSON.parse(content) as Kept));
  }
  await writeFileAtomic(
    path,
    `# E2B's own tests

Written by \`node scripts/e2b-suite.ts CHECKOUT SUITE\`: the tests of E2B's repositories, unmodified, with the
SDKs' sources beside them, against \`vmsan serve\`. Under emulation a test has 120 s. A row is of the last run of its file: where it was (in guests, or with
processes of the host in their place: the fake driver), and when; \`earlier\`: before that was written down. Where no public
registry is to be had, the image that tests build from, \`ubuntu:22.04\`, is the runtime \`e2b\` under that name.

${parts.join("\n")}`,
  );
}
