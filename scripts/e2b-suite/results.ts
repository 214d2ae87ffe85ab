/** e2b-suite/: parts of scripts/e2b-suite.ts. results.ts: what test runners report, in one form. */

/** What the tests of one file gave. */
export interface FileResult {
  passed: string[];
  failed: { test: string; message: string }[];
  /** Left out by the suite itself. */
  skipped: number;
  /** Processes of the host stood for guests. */
  fake?: boolean;
  /** When it was run, to the minute. */
  when?: string;
}

/** A file whose runner ended without a report. */
export function crashed(): FileResult {
  return { passed: [], failed: [{ test: "(the file)", message: "no report" }], skipped: 0 };
}

interface VitestFile {
  assertionResults: { fullName: string; status: string; failureMessages: string[] }[];
  message: string;
  name: string;
}

/** The first line of a failure, short enough for a table. */
function firstLine(text: string): string {
  return (text.trim().split("\n", 1)[0] ?? "").slice(0, 300);
}

/** Vitest's JSON report. @param nameOf the file's name from its path */
export function readVitest(
  content: string,
  nameOf: (path: string) => string,
): Record<string, FileResult> {
  const { testResults } = JSON.parse(content) as { testResults: VitestFile[] };
  return Object.fromEntries(
    testResults.map(({ name, assertionResults, message }) => {
      const result: FileResult = { passed: [], failed: [], skipped: 0 };
      for (const { fullName, status, failureMessages } of assertionResults) {
        if (status === "passed") result.passed.push(fullName);
        else if (status !== "failed") result.skipped += 1;
        else result.failed.push({ test: fullName, message: firstLine(failureMessages[0] ?? "") });
      }
      if (assertionResults.length === 0)
        result.failed.push({ test: "(the file)", message: firstLine(message) });
      return [nameOf(name), result];
    }),
  );
}

const ENTITIES: Record<string, string> = { lt: "<", gt: ">", amp: "&", quot: '"', apos: "'" };

function unescape(text: string): string {
  return text.replaceAll(/&(?:#(\d+)|([a-z]+));/g, (whole, code: string, name: string) =>
    code === undefined ? (ENTITIES[name] ?? whole) : String.fromCodePoint(Number(code)),
  );
}

/** pytest's JUnit report. @param names the files that were run */
export function readJunit(content: string, names: string[]): Record<string, FileResult> {
  const files: Record<string, FileResult> = {};
  const cases = /<testcase ([^>]*?)(?:\/>|>([\s\S]*?)<\/testcase>)/g;
  for (const [, attributes = "", body = ""] of content.matchAll(cases)) {
    const attribute = (name: string): string =>
      unescape(new RegExp(`\\b${name}="([^"]*)"`).exec(attributes)?.[1] ?? "");
    const dotted = attribute("classname").replace(/^tests\./, "");
    const file = names.find((name) =>
      `${dotted}.`.startsWith(`${name.slice(0, -3).replaceAll("/", ".")}.`),
    );
    const result = (files[file ?? dotted] ??= { passed: [], failed: [], skipped: 0 });
    const test = attribute("name");
    const failure = /<(?:failure|error) message="([^"]*)"/.exec(body)?.[1];
    if (failure !== undefined) {
      // An error of the teardown comes as a case of its own after the test's.
      result.passed = result.passed.filter((one) => one !== test);
      if (!result.failed.some((one) => one.test === test))
        result.failed.push({ test, message: firstLine(unescape(failure)) });
    } else if (body.includes("<skipped")) result.skipped += 1;
    else result.passed.push(test);
  }
  return files;
}
