/**
 * Adds up what the test runners reported, shows what failed in Go (vitest has shown its own), and
 * ends with one line "N passed, N failed[, N skipped]".
 *
 * node scripts/tally.ts DIR: reads DIR/*.vitest.json, DIR/*.gotest.jsonl and DIR/steps
 * (lines "NAME STATUS SECONDS" of steps without a report of their own, and of the runners).
 * Exit status 1 when anything failed or nothing passed.
 */
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";

interface Tally {
  passed: number;
  failed: number;
  skipped: number;
}

/** Counts of a vitest JSON report; a file that could not be loaded counts as one failure. */
export function tallyVitest(text: string): Tally {
  const report = JSON.parse(text) as {
    testResults: { status: string; assertionResults: { status: string }[] }[];
  };
  const tally = { passed: 0, failed: 0, skipped: 0 };
  for (const file of report.testResults) {
    let failedHere = 0;
    for (const { status } of file.assertionResults) {
      if (status === "passed") tally.passed += 1;
      else if (status === "failed") failedHere += 1;
      else tally.skipped += 1;
    }
    tally.failed += file.status === "failed" ? Math.max(failedHere, 1) : failedHere;
  }
  return tally;
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
    const go = read(".gotest.jsonl");
    try {
      if (vitest !== undefined) tally = tallyVitest(vitest);
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
    if (step.status !== 0 && tally.failed === 0) tally.failed = 1;
    if (vitest === undefined && go === undefined && step.status === 0) tally.passed = 1;
    total.passed += tally.passed;
    total.failed += tally.failed;
    total.skipped += tally.skipped;
    total.lines.push(
      `${tally.failed === 0 ? "ok  " : "FAIL"} ${step.name.padEnd(14)} ${String(step.seconds).padStart(5)} s   ` +
        `${tally.passed} passed, ${tally.failed} failed, ${tally.skipped} skipped`,
    );
  }
  return total;
}

if (process.argv[1] === import.meta.filename) {
  const total = tallyDirectory(process.argv[2] ?? ".");
  if (total.output !== "" && total.failed > 0) console.log(total.output);
  console.log(total.lines.join("\n"));
  const skipped = total.skipped === 0 ? "" : `, ${total.skipped} skipped`;
  console.log(`${total.passed} passed, ${total.failed} failed${skipped}`);
  process.exitCode = total.failed > 0 || total.passed === 0 ? 1 : 0;
}
