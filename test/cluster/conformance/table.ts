/** How Kubernetes' tests went, as a document. */
import { FAILING } from "./not-offered.ts";

/** What became of one test. */
export interface Outcome {
  /** With its labels. */
  name: string;
  state: "passed" | "failed" | "not offered" | "not run";
  /** Why it was not run, or what it said as it failed. */
  why: string;
  seconds?: number;
}

/** Of the whole run. */
export interface RunFacts {
  minutes: number;
  /** Tests at a time. */
  together: number;
  processors: number;
  load: number;
}

/** A test's name without its labels. */
const plain = (name: string): string => name.replaceAll(/ ?\[[^\]]*\]/g, "").replaceAll("|", "\\|");

function table(rows: readonly string[][], head: readonly string[]): string {
  const lines = [head, head.map(() => "---"), ...rows].map((row) => `| ${row.join(" | ")} |`);
  return lines.join("\n");
}

/** What a test has said, or what is known of it, in one line. */
function reasonOf({ name, why }: Outcome): string {
  const known = FAILING.find(({ pattern }) => new RegExp(pattern).test(name))?.why;
  return known ?? why.replaceAll(/\s+/g, " ").replaceAll("|", "\\|").slice(0, 300);
}

/** The document. */
export function page(outcomes: readonly Outcome[], facts: RunFacts): string {
  const of = (state: Outcome["state"]): Outcome[] => outcomes.filter((one) => one.state === state);
  const [passed, failed, left, late] = [
    of("passed"),
    of("failed"),
    of("not offered"),
    of("not run"),
  ];
  const { minutes, together, processors, load } = facts;
  const parts = [
    "<!-- Written by test/cluster/conformance/run.ts --write. -->",
    "# Kubernetes' conformance tests",
    `Those of Kubernetes 1.37.2 that are about pods, their life, commands, logs and volumes, against a host whose pods all boot: of ${outcomes.length}, ` +
      `**${passed.length} pass, ${failed.length} fail**, ${left.length} are about what is [not offered](cluster.md)` +
      `${late.length > 0 ? `, ${late.length} were not run` : ""}. ` +
      `It took ${minutes.toFixed(0)} minutes, ${together} at a time, on ${processors} processors without KVM at a load of ${load.toFixed(0)}.`,
    "## Failed",
    table(
      failed.map((one) => [plain(one.name), reasonOf(one)]),
      ["test", "why"],
    ),
    "## Not offered",
    "Not run: a pod that asks for it is refused with an event, or the test is of Services and addresses of pods.",
    table(
      left.map(({ name, why }) => [plain(name), why]),
      ["test", "why"],
    ),
    ...(late.length > 0
      ? [
          "## Not run",
          table(
            late.map(({ name, why }) => [plain(name), why]),
            ["test", "why"],
          ),
        ]
      : []),
    "## Passed",
    table(
      passed.map(({ name, seconds = 0 }) => [plain(name), seconds.toFixed(0)]),
      ["test", "s"],
    ),
  ];
  return `${parts.join("\n\n")}\n`;
}
