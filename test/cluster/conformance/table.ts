/** How Kubernetes' tests went, as a document. */
import { availableParallelism } from "node:os";
import { FAILING, reasonFor } from "./not-offered.ts";
import type { Ended, Results } from "./results.ts";

/** A test's name without its labels. */
const plain = (name: string): string =>
  name
    .replaceAll(/ ?\[[^\]]*\]/g, "")
    .replaceAll("|", "\\|")
    .trim();

function table(rows: readonly string[][], head: readonly string[]): string {
  const lines = [head, head.map(() => "---"), ...rows].map((row) => `| ${row.join(" | ")} |`);
  return lines.join("\n");
}

/** What a test has said, or what is known of it, in one line. */
function reasonOf(name: string, { why }: Ended): string {
  const known = FAILING.find(({ pattern }) => new RegExp(pattern).test(name))?.why;
  return known ?? why.replaceAll(/\s+/g, " ").replaceAll("|", "\\|").slice(0, 300);
}

function section(title: string, rows: readonly string[][], last: string, before = ""): string[] {
  if (rows.length === 0) return [];
  return [`## ${title}`, ...(before === "" ? [] : [before]), table(rows, ["test", last])];
}

/**
 * The document.
 * @param names of all tests, with their labels
 */
export function page(names: readonly string[], results: Results): string {
  const passed: string[][] = [];
  const failed: string[][] = [];
  const left: string[][] = [];
  const late: string[][] = [];
  for (const name of names) {
    const why = reasonFor(name);
    const ended = results.get(name);
    if (why !== undefined) left.push([plain(name), why]);
    else if (ended === undefined) late.push([plain(name), "the time was over"]);
    else if (ended.passed) passed.push([plain(name), ended.seconds.toFixed(0)]);
    else failed.push([plain(name), reasonOf(name, ended)]);
  }
  const { facts } = results;
  const minutes = facts.reduce((sum, run) => sum + run.minutes, 0);
  const loads = facts.map(({ load }) => Math.round(load)).toSorted((a, b) => a - b);
  const together = Math.max(...facts.map((run) => run.together));
  const parts = [
    "<!-- Written by test/cluster/conformance/run.ts --write. -->",
    "# Kubernetes' conformance tests",
    `Those of Kubernetes 1.37.2 that are about pods, their life, commands, logs and volumes, against a host whose pods all boot: of ${names.length}, ` +
      `**${passed.length} pass, ${failed.length} fail**, ${left.length} are about what is [not offered](cluster.md)` +
      `${late.length > 0 ? `, ${late.length} were not run` : ""}. ` +
      `They took ${minutes.toFixed(0)} minutes in ${facts.length} ${facts.length === 1 ? "run" : "runs"}, up to ${together} at a time, ` +
      `on ${availableParallelism()} processors without KVM at a load of ${loads[0]} to ${loads.at(-1)}.`,
    ...section("Failed", failed, "why"),
    ...section(
      "Not offered",
      left,
      "why",
      "Not run: a pod that asks for it is refused with an event, or the test is of Services and addresses of pods.",
    ),
    ...section("Not run", late, "why"),
    ...section("Passed", passed, "s"),
  ];
  return `${parts.join("\n\n")}\n`;
}
