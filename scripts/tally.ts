/**
 * Adds up what the test runners reported, shows what failed in Go (vitest has shown its own), names
 * every test that failed, and ends with one line "N passed, N failed[, N skipped]".
 *
 * node scripts/tally.ts DIR: reads DIR/*.vitest.json, DIR/*.gotest.jsonl and DIR/steps
 * (lines "NAME STATUS SECONDS" of steps without a report of their own, and of the runners). What
 * DIR/NAME-again.vitest.json has of a file stands for what DIR/NAME.vitest.json has of it; tests
 * that passed only then are named as unsteady.
 * Exit status 1 when anything failed or nothing passed.
 *
 * node scripts/tally.ts --again REPORT: the files of a vitest report that are worth a second run,
 * one a line: those that failed, if they are few.
 */
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { join, relative } from "node:path";

/** More failing files than these are no accident of a busy machine. */
const AGAIN_AT_MOST = 3;

interface Tally {
  passed: number;
  failed: number;
  skipped: number;
}

/** What is read of vitest's JSON report. */
interface VitestReport {
  testResults: {
    name?: string;
    status: string;
    message?: string;
    assertionResults: { status: string; fullName?: string; failureMessages?: string[] }[];
  }[];
}

/** Counts of a vitest JSON report; a file that could not be loaded counts as one failure. */
export function tallyVitest(text: string): Tally & { failures: string[] } {
  const tally = { passed: 0, failed: 0, skipped: 0, failures: [] as string[] };
  const firstLine = (message = ""): string => message.split("\n", 1)[0]?.slice(0, 300) ?? "";
  for (const file of (JSON.parse(text) as VitestReport).testResults) {
    const name = file.name === undefined ? "a file" : relative("", file.name);
    let failedHere = 0;
    for (const { status, fullName, failureMessages } of file.assertionResults) {
      if (status === "passed") tally.passed += 1;
      else if (status === "failed") {
        failedHere += 1;
        tally.failures.push(`${name}: ${fullName}: ${firstLine(failureMessages?.[0])}`);
      } else tally.skipped += 1;
    }
    if (file.status === "failed" && failedHere === 0) {
      failedHere = 1;
      tally.failures.push(`${name}: ${firstLine(file.message)}`);
    }
    tally.failed += failedHere;
  }
  return tally;
}

/**
 * A report with what a second run says of its files in their places.
 * @returns the report and what had failed in the files that passed the second time
 */
export function mergeAgain(first: string, again: string): { text: string; unsteady: string[] } {
  const report = JSON.parse(first) as VitestReport;
  const second = new Map(
    (JSON.parse(again) as VitestReport).testResults.map((file) => [file.name, file]),
  );
  const steadied = report.testResults.filter(
    ({ name, status }) => status === "failed" && second.get(name)?.status === "passed",
  );
  const { failures } = tallyVitest(JSON.stringify({ testResults: steadied }));
  report.testResults = report.testResults.map((file) => second.get(file.name) ?? file);
  return { text: JSON.stringify(report), unsteady: failures };
}

/** The failed files of a vitest report, none when they are too many for a second run to say much. */
export function worthAgain(text: string): string[] {
  const failed = (JSON.parse(text) as VitestReport).testResults
    .filter(({ status }) => status === "failed")
    .flatMap(({ name }) => name ?? []);
  return failed.length > AGAIN_AT_MOST ? [] : failed;
}

/** Counts of `go test -json`; a package that fails outside of any test counts as one failure. */
export function tallyGo(text: string): Tally & { output: string } {
  const tally = { passed: 0, failed: 0, skipped: 0, output: "" };
  const outputs = new Map<string, string>();
  const packagesWithFailures = new Set<string>();
  for (const line of text.split("\n")) {
    if (!line.startsWith("{")) {
      tally.output += line === "" ? "" : `${line}\n`;
      continue;
    }
    const event = JSON.parse(line) as {
      Action: string;
      Package?: string;
      ImportPath?: string;
      Test?: string;
      Output?: string;
    };
    const owner = event.Package ?? event.ImportPath ?? "";
    const key = `${owner} ${event.Test ?? ""}`;
    if (event.Output !== undefined)
      outputs.set(key, `${outputs.get(key) ?? ""}${event.Output}`.slice(-20_000));
    if (event.Action === "build-fail") tally.output += outputs.get(key) ?? "";
    if (event.Test === undefined) {
      if (event.Action === "fail" && !packagesWithFailures.has(owner)) {
        tally.failed += 1;
        tally.output += outputs.get(key) ?? "";
      }
    } else if (event.Action === "pass") tally.passed += 1;
    else if (event.Action === "skip") tally.skipped += 1;
    else if (event.Action === "fail") {
      tally.failed += 1;
      packagesWithFailures.add(owner);
      tally.output += `--- ${owner} ${event.Test}\n${outputs.get(key) ?? ""}`;
    }
  }
  return tally;
}

/** A step of scripts/test.sh. */
interface Step {
  name: string;
  status: number;
  seconds: number;
}

/** The closing numbers of a directory of reports. */
export function tallyDirectory(dir: string): Tally & { lines: string[]; output: string } {
  const total = { passed: 0, failed: 0, skipped: 0, lines: [] as string[], output: "" };
  const named: string[] = [];
  const names = readdirSync(dir);
  const steps: Step[] = readFileSync(join(dir, "steps"), "utf8")
    .trim()
    .split("\n")
    .map((line) => {
      const [name = "", status = "1", seconds = "0"] = line.split(" ");
      return { name, status: Number(status), seconds: Number(seconds) };
    });
  for (const step of steps) {
    let tally: Tally = { passed: 0, failed: 0, skipped: 0 };
    const read = (suffix: string): string | undefined =>
      names.includes(step.name + suffix)
        ? readFileSync(join(dir, step.name + suffix), "utf8")
        : undefined;
    const vitest = read(".vitest.json");
    const again = read("-again.vitest.json");
    const go = read(".gotest.jsonl");
    let { status } = step;
    try {
      if (vitest !== undefined) {
        const merged =
          again === undefined ? { text: vitest, unsteady: [] } : mergeAgain(vitest, again);
        const counted = tallyVitest(merged.text);
        tally = counted;
        // The runner failed for its tests' sake, and they have passed since.
        if (merged.unsteady.length > 0 && counted.failed === 0) status = 0;
        named.push(...merged.unsteady.map((what) => `unsteady, passed the second time: ${what}`));
        named.push(...counted.failures.map((what) => `failed: ${what}`));
      }
      if (go !== undefined) {
        const counted = tallyGo(go);
        tally = counted;
        total.output += counted.output;
      }
    } catch (error) {
      // A report cut short by a time limit: the step's status says so below.
      total.output += `${step.name}: unreadable report: ${String(error)}\n`;
    }
    // A step that failed without any failed test: a time limit, an unhandled error, a check.
    if (status !== 0 && tally.failed === 0) tally.failed = 1;
    if (vitest === undefined && go === undefined && status === 0) tally.passed = 1;
    total.passed += tally.passed;
    total.failed += tally.failed;
    total.skipped += tally.skipped;
    total.lines.push(
      `${tally.failed === 0 ? "ok  " : "FAIL"} ${step.name.padEnd(14)} ${String(step.seconds).padStart(5)} s   ` +
        `${tally.passed} passed, ${tally.failed} failed, ${tally.skipped} skipped`,
    );
  }
  total.lines.push(...named);
  return total;
}

if (process.argv[1] === import.meta.filename) {
  const [what = ".", report = ""] = process.argv.slice(2);
  if (what === "--again") {
    if (existsSync(report)) console.log(worthAgain(readFileSync(report, "utf8")).join("\n"));
  } else {
    const total = tallyDirectory(what);
    if (total.output !== "" && total.failed > 0) console.log(total.output);
    console.log(total.lines.join("\n"));
    const skipped = total.skipped === 0 ? "" : `, ${total.skipped} skipped`;
    console.log(`${total.passed} passed, ${total.failed} failed${skipped}`);
    process.exitCode = total.failed > 0 || total.passed === 0 ? 1 : 0;
  }
}
