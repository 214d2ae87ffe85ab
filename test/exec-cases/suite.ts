/**
 * The exec suite, for any guest: `execSuite("qemu", () => start)`. Takes what starts a
 * command; each case runs on it and is compared with what bash over ssh does.
 */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { sh } from "./case.ts";
import type { ExecCase, Outcome } from "./case.ts";
import { controlCases } from "./control.ts";
import { inputCases } from "./input.ts";
import { outputCases } from "./output.ts";
import { processCases } from "./process.ts";
import { runCase } from "./run.ts";
import type { StartCommand } from "./run.ts";

/** What a guest says of the suite. */
export interface SuiteOptions {
  /** Case → why this guest cannot pass it. */
  skip?: Record<string, string>;
  /** What this way of running a command cannot see. */
  blind?: (keyof Outcome)[];
  /** Bytes of the largest output; default 1 GB. */
  big?: number;
  /** Commands at once; default 100. */
  parallel?: number;
  /** Every how many-th exit status is tried; default 1. An emulated guest starts few commands a second. */
  statusStep?: number;
  /** Milliseconds a case may take; default 60 s. */
  timeoutMs?: number;
}

/** All cases. */
export function execCases(big = 1_000_000_000): ExecCase[] {
  return [...inputCases, ...outputCases(big), ...processCases, ...controlCases];
}

/** Compare what came out with what was expected, every difference at once. */
export function checkOutcome(outcome: Outcome, expected: ExecCase["expect"]): void {
  const wrong: Record<string, unknown> = {};
  for (const [key, want] of Object.entries(expected)) {
    const value = outcome[key as keyof Outcome];
    let right = value === want;
    if (want instanceof RegExp) right = want.test(String(value));
    else if (typeof want === "function") right = (want as (value: unknown) => boolean)(value);
    if (!right) wrong[key] = { got: value, want: typeof want === "function" ? String(want) : want };
  }
  const context =
    Object.keys(wrong).length === 0 ? {} : { ...wrong, stderrWas: outcome.stderr.slice(0, 500) };
  expect(context).toEqual({});
}

/** What the guest has of a case's needs. */
async function capabilities(start: StartCommand): Promise<Set<string>> {
  const look = async (script: string): Promise<boolean> =>
    (await runCase(start, { argv: sh(script) })).exitCode === 0;
  const found = new Set<string>();
  if (await look('test "$(id -u)" = 0')) found.add("root");
  if (await look("grep -q ^nobody: /etc/passwd")) found.add("passwd-nobody");
  if (await look("grep -q vmsan /proc/self/cgroup")) found.add("cgroup");
  return found;
}

/**
 * Declare the suite.
 * @param open gives what starts commands, and ends it
 */
export function execSuite(
  name: string,
  open: () => Promise<{ start: StartCommand; close: () => Promise<void> }>,
  options: SuiteOptions = {},
): void {
  const timeoutMs = options.timeoutMs ?? 60_000;
  describe(`exec suite: ${name}`, () => {
    let guest: Awaited<ReturnType<typeof open>>;
    let has = new Set<string>();
    beforeAll(async () => {
      guest = await open();
      has = await capabilities(guest.start);
    }, timeoutMs);
    afterAll(async () => await guest.close());

    for (const { name: title, run, expect: expected, needs = [] } of execCases(options.big)) {
      const why = options.skip?.[title];
      if (why !== undefined) {
        test.skip(`${title} (${why})`, () => undefined);
        continue;
      }
      test(
        title,
        async (context) => {
          const missing = needs.filter((need) => !has.has(need));
          if (missing.length > 0) {
            console.log(`skipped: ${title}: this guest has no ${missing.join(", ")}`);
            context.skip();
          }
          const seen = Object.entries(expected).filter(
            ([key]) => options.blind?.includes(key as keyof Outcome) !== true,
          );
          checkOutcome(await runCase(guest.start, run), Object.fromEntries(seen));
        },
        timeoutMs,
      );
    }

    test(
      options.statusStep === undefined
        ? "every exit status from 0 to 255"
        : `exit statuses from 0 to 255, each ${options.statusStep}th`,
      async () => {
        const step = options.statusStep ?? 1;
        const codes = Array.from({ length: 256 }, (_, i) => i).filter((i) => i % step === 0);
        const got: number[] = [];
        for (let i = 0; i < codes.length; i += 16) {
          const batch = codes.slice(i, i + 16);
          const outcomes = await Promise.all(
            batch.map((code) => runCase(guest.start, { argv: ["sh", "-c", `exit ${code}`] })),
          );
          got.push(...outcomes.map(({ exitCode }) => exitCode));
        }
        expect(got).toEqual(codes);
      },
      timeoutMs,
    );

    test(
      `${options.parallel ?? 100} commands at once, each with its own output`,
      async () => {
        const numbers = Array.from({ length: options.parallel ?? 100 }, (_, i) => i);
        const outcomes = await Promise.all(
          numbers.map((i) =>
            runCase(guest.start, {
              argv: sh(`echo out ${i}; cat; echo err ${i} >&2; exit ${i % 256}`),
              stdin: Buffer.from(`in ${i}\n`),
            }),
          ),
        );
        expect(outcomes.map(({ stdout, stderr, exitCode }) => [stdout, stderr, exitCode])).toEqual(
          numbers.map((i) => [`out ${i}\nin ${i}\n`, `err ${i}\n`, i % 256]),
        );
      },
      timeoutMs,
    );
  });
}
