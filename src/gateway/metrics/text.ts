/**
 * metrics/: figures of daemon and gateway for Prometheus. Takes families as model/metrics.ts has them,
 * gives the text format 0.0.4.
 *
 * No library writes it: the figures live in another process, where a library's registry would hold
 * them itself, and what is left is this file, which Prometheus's own parser reads in the tests.
 */
import type { MetricFamily } from "../../model/metrics.ts";

/** The type of the text. */
export const METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8";

const ESCAPES: Record<string, string> = { "\\": "\\\\", '"': '\\"', "\n": "\\n" };

/** A label's value; names of VMs are checked, but what is written here need not know. */
function quoted(text: string): string {
  return `"${text.replaceAll(/[\\"\n]/g, (character) => ESCAPES[character] ?? "")}"`;
}

/** Families as text. */
export function metricsText(families: readonly MetricFamily[]): string {
  const lines: string[] = [];
  for (const { name, help, type, samples } of families) {
    lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`);
    for (const { suffix = "", labels, value } of samples) {
      const pairs = Object.entries(labels).map(([key, text]) => `${key}=${quoted(text)}`);
      const inBraces = pairs.length === 0 ? "" : `{${pairs.join(",")}}`;
      lines.push(`${name}${suffix}${inBraces} ${value}`);
    }
  }
  return `${lines.join("\n")}\n`;
}
