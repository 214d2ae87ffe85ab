/** The exec suite on the fake driver, and its expectations on bash itself. */
import { execFile } from "node:child_process";
import { describe, expect, test } from "vitest";
import { sh } from "../exec-cases/case.ts";
import { checkOutcome, execCases, execSuite } from "../exec-cases/suite.ts";
import { fakeGuest } from "../exec-cases/fake-guest.ts";

execSuite("fake", async () => {
  const guest = await fakeGuest();
  return { start: guest.start, close: guest.close };
});

describe("the expectations themselves hold for bash", () => {
  const plain = execCases(1000).filter(({ run, unlikeBash, needs, expect }) => {
    const simple = run.steps === undefined && run.tty === undefined && run.timeoutMs === undefined;
    const script = run.argv[0] === "bash" && run.user === undefined && expect.error === undefined;
    return (
      simple &&
      script &&
      unlikeBash === undefined &&
      needs === undefined &&
      run.env === undefined &&
      run.stdin === undefined
    );
  });
  expect(plain.length).toBeGreaterThan(20);
  test.each(plain.map((entry) => [entry.name, entry] as const))("%s", async (_name, entry) => {
    const outcome = await new Promise<Parameters<typeof checkOutcome>[0]>((resolve) => {
      const child = execFile(
        "bash",
        entry.run.argv.slice(1),
        { encoding: "latin1", maxBuffer: 1 << 28, cwd: entry.run.workdir ?? "/" },
        (error, stdout, stderr) => {
          const signal = child.signalCode ?? undefined;
          const numbers: Record<string, number> = {
            SIGKILL: 9,
            SIGTERM: 15,
            SIGHUP: 1,
            SIGINT: 2,
            SIGSEGV: 11,
            SIGABRT: 6,
            SIGUSR1: 10,
          };
          const code = typeof error?.code === "number" ? error.code : 0;
          resolve({
            exitCode: signal === undefined ? code : 128 + (numbers[signal] ?? 0),
            ...(signal === undefined ? {} : { signal }),
            timedOut: false,
            stdout,
            stderr,
            stdoutBytes: stdout.length,
            stderrBytes: stderr.length,
            stdoutSha256: "",
            stderrSha256: "",
          });
        },
      );
      child.stdin?.end();
    });
    const { stdoutSha256: _out, stderrSha256: _err, ...expected } = entry.expect;
    checkOutcome(outcome, expected);
  });
  test("and the comparison can fail", async () => {
    const { runCase } = await import("../exec-cases/run.ts");
    const guest = await fakeGuest();
    const outcome = await runCase(guest.start, { argv: sh("echo a; exit 1") });
    await guest.close();
    expect(() => checkOutcome(outcome, { exitCode: 0 })).toThrow();
    expect(() => checkOutcome(outcome, { stdout: "b\n" })).toThrow();
  });
});
