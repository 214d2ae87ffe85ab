/** Progress on a terminal (bars, redrawn), in a log (two lines an item), or as JSON lines. */
import type { ProgressEvent, ProgressSink } from "../model/progress.ts";
import { formatAmount, formatBytes, formatProgress } from "../util/units.ts";
import { oneLine } from "./output.ts";
import type { Output } from "./output.ts";

const REDRAW_MS = 100;
/** Columns between the brackets of a bar. */
const BAR = 24;

/** Shows progress until it is closed. */
export interface ProgressView {
  sink: ProgressSink;
  /** Remove what is on the terminal's lines. */
  close(): void;
}

/** One event as a line of text. */
function describe(event: ProgressEvent): string {
  return oneLine(formatProgress(event));
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

/** A line when a phase or an item begins, and one when an item ends; not one for each step. */
function lines(): ProgressView {
  const said = new Set<string>();
  const say = (text: string): void => {
    if (said.has(text)) return;
    said.add(text);
    process.stderr.write(`${text}\n`);
  };
  return {
    sink: (event) => {
      const { phase, item, message, done, total, unit } = event;
      if (item === undefined || message !== undefined || total === undefined) {
        const { done: _done, total: _total, ...rest } = event;
        say(describe(rest));
        return;
      }
      const name = oneLine(`${phase} ${item}`);
      say(`${name} ${unit === "bytes" ? formatBytes(total) : total}`);
      if (done === total) say(`${name} done`);
    },
    close: () => undefined,
  };
}

/** A bar with what it is for; as wide as it comes. */
function bar(name: string, done: number, total: number, rest: string): string {
  const share = total === 0 ? 1 : Math.min(1, done / total);
  const filled = "#".repeat(Math.round(share * BAR)).padEnd(BAR);
  return `${name} [${filled}] ${String(Math.floor(share * 100)).padStart(3)}% ${rest}`;
}

/** What one phase has said of its items. */
interface Items {
  phase: string;
  byName: Map<string, { done: number; total: number; event: ProgressEvent }>;
  message: string;
}

/** The lines that show a phase with items: their sum, and a bar for each that is under way. */
function itemLines({ phase, byName, message }: Items, rows: number): string[] {
  const all = [...byName.entries()];
  const sum = (pick: (item: { done: number; total: number }) => number): number =>
    all.reduce((total, [, item]) => total + pick(item), 0);
  const whole = all.filter(([, { done, total }]) => done === total).length;
  const [done, total] = [sum((item) => item.done), sum((item) => item.total)];
  const share = `${whole} of ${all.length}, ${formatBytes(done)} of ${formatBytes(total)}`;
  const active = all.filter(([, item]) => item.done > 0 && item.done < item.total);
  return [
    `${phase} ${share}`,
    ...active
      .slice(0, rows)
      .map(([name, item]) => `  ${bar(name, item.done, item.total, formatAmount(item.event))}`),
    ...(message === "" ? [] : [`  ${message}`]),
  ];
}

/** Bars on a terminal, redrawn in place. */
function terminal(): ProgressView {
  let last = 0;
  let drawn = 0;
  let items: Items | undefined;
  const erase = (): string => (drawn > 1 ? `\r\u001B[${drawn - 1}A\u001B[J` : "\r\u001B[J");
  const clear = (): void => {
    if (drawn > 0) process.stderr.write(erase());
    drawn = 0;
  };
  const draw = (shown: readonly string[]): void => {
    // Narrower than the terminal: a line that wraps could not be erased.
    const width = Math.max(20, (process.stderr.columns ?? 80) - 1);
    process.stderr.write(erase() + shown.map((line) => oneLine(line).slice(0, width)).join("\n"));
    drawn = shown.length;
  };
  return {
    sink: (event) => {
      const { phase, item, done, total } = event;
      if (items !== undefined && items.phase !== phase) items = undefined;
      if (item !== undefined && done !== undefined && total !== undefined) {
        items ??= { phase, byName: new Map(), message: "" };
        items.byName.set(item, { done, total, event });
      }
      if (items !== undefined && event.message !== undefined) items.message = event.message;
      const now = Date.now();
      const ended = items === undefined && done !== undefined && done === total;
      if (now - last < REDRAW_MS && !ended) return;
      last = now;
      const rows = Math.max(1, (process.stderr.rows ?? 24) - 3);
      if (items !== undefined) draw(itemLines(items, rows));
      else if (done !== undefined && total !== undefined && total > 0) {
        draw([bar(describe({ phase, ...messageOf(event) }), done, total, formatAmount(event))]);
      } else draw([describe(event)]);
    },
    close: clear,
  };
}

/** The event's words without its numbers. */
function messageOf({ item, message }: ProgressEvent): { item?: string; message?: string } {
  return {
    ...(item === undefined ? {} : { item }),
    ...(message === undefined ? {} : { message }),
  };
}
