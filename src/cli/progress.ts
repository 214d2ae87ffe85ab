/** Progress on a terminal (one line, redrawn), in a log (a line a phase), or as JSON lines. */
import type { ProgressEvent, ProgressSink } from "../model/progress.ts";
import { formatBytes } from "../util/units.ts";
import { plain } from "./output.ts";
import type { Output } from "./output.ts";

const REDRAW_MS = 100;

/** Shows progress until it is closed. */
export interface ProgressView {
  sink: ProgressSink;
  /** Remove what is on the terminal's line. */
  close(): void;
}

/** One event as a line of text. */
function describe(event: ProgressEvent): string {
  const parts = [event.phase];
  if (event.item !== undefined) parts.push(event.item);
  if (event.message !== undefined) parts.push(event.message);
  if (event.done !== undefined) {
    const show = (n: number): string => (event.unit === "bytes" ? formatBytes(n) : String(n));
    const known = event.total !== undefined && event.total > 0;
    parts.push(known ? `${show(event.done)} of ${show(event.total ?? 0)}` : show(event.done));
  }
  return plain(parts.join(" "));
}

/**
 * How to show progress.
 * @param quiet nothing but on a terminal or with --verbose (commands whose standard error
 *   belongs to the guest's command)
 */
export function progressView(output: Output, quiet: boolean): ProgressView {
  if (output.json) {
    if (quiet && !output.verbose) return silent;
    return {
      sink: (event) => process.stderr.write(`${JSON.stringify(event)}\n`),
      close: () => undefined,
    };
  }
  if (process.stderr.isTTY) return terminal();
  return quiet && !output.verbose ? silent : lines();
}

/** No progress at all. */
export const silent: ProgressView = { sink: () => undefined, close: () => undefined };

/** A line for each phase and item, not for each step of it. */
function lines(): ProgressView {
  const said = new Set<string>();
  return {
    sink: (event) => {
      const key = `${event.phase} ${event.item ?? ""} ${event.message ?? ""}`;
      if (said.has(key)) return;
      said.add(key);
      const { done: _done, total: _total, ...rest } = event;
      process.stderr.write(`${describe(rest)}\n`);
    },
    close: () => undefined,
  };
}

function terminal(): ProgressView {
  let last = 0;
  let drawn = false;
  const clear = (): void => {
    if (drawn) process.stderr.write("\r\u001B[K");
    drawn = false;
  };
  return {
    sink: (event) => {
      const now = Date.now();
      if (now - last < REDRAW_MS && event.done !== event.total) return;
      last = now;
      const width = Math.max(20, (process.stderr.columns ?? 80) - 1);
      process.stderr.write(`\r\u001B[K${describe(event).slice(0, width)}`);
      drawn = true;
    },
    close: clear,
  };
}
