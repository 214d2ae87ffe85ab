/**
 * cli/: the command line. Takes argv, gives text or one JSON object, and an exit status.
 * One file a command; each may do only what the SDK can. Start-up loads commander and the
 * commands' definitions alone: everything else is imported by the action that needs it.
 *
 * output.ts: where results, notes and failures go.
 */
import { asVmsanError } from "../model/errors.ts";
import type { VmsanError } from "../model/errors.ts";
import { bytesOfText } from "../util/byte-text.ts";

/** Flags that every command takes. */
export interface CommonFlags {
  json?: boolean;
  verbose?: boolean;
  timing?: boolean;
  trace?: string;
}

/** Exit status for wrong usage; other failures of vmsan itself have 1. */
export const EXIT_USAGE = 2;

/** Text without control characters: guest and registry output must not drive a terminal. */
export function plain(text: string): string {
  // oxlint-disable-next-line no-control-regex -- control characters are what is removed here
  return text.replaceAll(/[\u0000-\u0008\u000B-\u001F\u007F-\u009F]/g, "");
}

const ESCAPES: Record<string, string> = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };

/**
 * Text for one line: line breaks and whatever else moves a terminal's cursor, or turns the direction
 * of writing, are shown as escapes, and bytes that are no text too (`\\xff`). The words of a guest or
 * a registry cannot forge a line by them.
 */
export function oneLine(text: string): string {
  // oxlint-disable-next-line no-control-regex -- control characters are what is shown here
  const moving = /[\u0000-\u001F\u007F-\u009F\u061C\u200E\u200F\u2028-\u202E\u2066-\u2069]/g;
  return text
    .replaceAll(
      moving,
      (character) =>
        ESCAPES[character] ?? `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
    )
    .replaceAll(/[\uDC80-\uDCFF]/gu, (byte) => `\\x${byte.charCodeAt(0).toString(16).slice(2)}`);
}

/** JSON on one line; control characters that JSON itself leaves alone are escaped as well. */
function jsonLine(value: unknown): string {
  // oxlint-disable-next-line no-control-regex -- as above
  return JSON.stringify(value).replaceAll(
    /[\u007F-\u009F]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** Results on standard output, everything for people on standard error. */
export class Output {
  readonly json: boolean;
  readonly verbose: boolean;

  constructor(flags: CommonFlags) {
    this.json = flags.json === true;
    this.verbose = flags.verbose === true;
  }

  /** The command's result: JSON with --json, else the text (nothing when there is none). */
  result(value: unknown, text?: string): void {
    if (this.json) process.stdout.write(`${jsonLine(value)}\n`);
    else if (text !== undefined && text !== "") {
      process.stdout.write(bytesOfText(`${plain(text)}\n`));
    }
  }

  /** Sentences for people, a line each, whoever's words they quote. */
  note(...lines: string[]): void {
    process.stderr.write(lines.map((line) => `${oneLine(line)}\n`).join(""));
  }

  /** A sentence for people who asked for more. */
  detail(text: string): void {
    if (this.verbose) this.note(text);
  }

  /** Report a failure. @returns the exit status */
  failure(error: unknown): number {
    const known = asVmsanError(error, "vmsan failed");
    if (this.json) {
      const { code, message, why, fix, details } = known.toJSON();
      process.stdout.write(
        `${jsonLine({ error: { code, message, why: why ?? "", fix: fix ?? "", ...(details === undefined ? {} : { details }) } })}\n`,
      );
    } else {
      const lines = [`error: ${known.message} [${known.code}]`];
      if (known.why !== undefined && known.why !== "") lines.push(`  why: ${known.why}`);
      if (known.fix !== undefined && known.fix !== "") lines.push(`  fix: ${known.fix}`);
      this.note(...lines);
      // Without the message in front, which has been said.
      const frames = (known.stack ?? "").split("\n").filter((line) => /^\s+at /.test(line));
      if (this.verbose) this.note(...frames);
    }
    return statusOf(known);
  }
}

/** The exit status for an error: the user's words were wrong, or what they asked for failed. */
export function statusOf(error: VmsanError): number {
  return error.code.startsWith("ERR_VALIDATION_") ? EXIT_USAGE : 1;
}

/** `key=value` for each of an object's fields; what has blanks in it is quoted. */
export function fieldsOf(data: object): string {
  return Object.entries(data)
    .map(([key, value]) => {
      const text = Array.isArray(value) ? value.join(",") : String(value);
      return `${key}=${/\s/.test(text) ? JSON.stringify(text) : text}`;
    })
    .join(" ");
}

/** Rows as aligned columns, one line each; the last column is not padded. */
export function table(given: readonly (readonly string[])[]): string {
  const rows = given.map((row) => row.map(oneLine));
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, i) => (widths[i] = Math.max(widths[i] ?? 0, cell.length)));
  }
  return rows
    .map((row) =>
      row
        .map((cell, i) => (i === row.length - 1 ? cell : cell.padEnd(widths[i] ?? 0)))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}
