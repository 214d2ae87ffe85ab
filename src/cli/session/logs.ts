/** Showing what a guest has said: its console, a detached command's output, decisions. */
import { createInterface } from "node:readline";
import { pipeline } from "node:stream/promises";
import { attachStream } from "../../agent/streams.ts";
import { streamInfo } from "../../agent/commands.ts";
import type { Vm } from "../../client/vm.ts";
import { VmsanError } from "../../model/errors.ts";
import { invalid, parseDuration, parseInteger } from "../../util/units.ts";
import { fieldsOf, oneLine } from "../output.ts";
import type { Output } from "../output.ts";

/** How much to show. */
export interface LogOptions {
  follow: boolean;
  /** Number of lines. */
  tail?: string;
  /** A duration back from now, or a date. */
  since?: string;
}

/** Keeps the last lines of what passes. */
class LastLines {
  private readonly limit: number;
  private lines: string[] = [];
  private rest = "";

  constructor(limit: number) {
    this.limit = limit;
  }

  push(text: string): void {
    const parts = (this.rest + text).split("\n");
    this.rest = parts.pop() ?? "";
    this.lines = [...this.lines, ...parts.map((line) => `${line}\n`)].slice(-this.limit);
  }

  text(): string {
    const all = this.rest === "" ? this.lines : [...this.lines, this.rest];
    return all.slice(-this.limit).join("");
  }
}

function tailOf(options: LogOptions): LastLines | undefined {
  if (options.tail === undefined) return undefined;
  return new LastLines(parseInteger("--tail", options.tail, 1, 1_000_000));
}

/** The guest's console. */
export async function showConsole(vm: Vm, options: LogOptions, output: Output): Promise<number> {
  const stream = await vm.console({ follow: options.follow });
  const tail = tailOf(options);
  if (options.follow && !output.json) {
    await pipeline(stream, process.stdout, { end: false });
    return 0;
  }
  stream.setEncoding("utf8");
  const whole = tail ?? new LastLines(1_000_000);
  for await (const text of stream as AsyncIterable<string>) whole.push(text);
  output.result({ vmId: vm.id, console: whole.text() });
  if (!output.json) process.stdout.write(whole.text());
  return 0;
}

/** When a `--since` means, in milliseconds since the epoch. @throws ERR_VALIDATION_DURATION */
export function sinceTime(text: string, now: number = Date.now()): number {
  const date = Date.parse(text);
  if (/^\d{4}-/.test(text) && !Number.isNaN(date)) return date;
  if (/^\d/.test(text) && !/^\d{4}-/.test(text)) return now - parseDuration(text);
  throw invalid(
    "DURATION",
    "--since",
    text,
    "It takes a duration or a date.",
    "For example: 10m, or 2026-01-31T12:00:00Z.",
  );
}

/** The output of a command that runs or has run detached. */
export async function showCommandOutput(
  vm: Vm,
  id: string,
  options: LogOptions,
  output: Output,
): Promise<number> {
  const info = await streamInfo(vm.transport, requireId(id));
  if (options.since !== undefined && Date.parse(info.startedAt) < sinceTime(options.since))
    return 0;
  const tail = tailOf(options);
  const direct = tail === undefined && !output.json;
  const err = new LastLines(1_000_000);
  const out = tail ?? new LastLines(1_000_000);
  // A running command has no end to wait for: what the agent had at the start is awaited.
  let missing = info.stdout.end - info.stdout.start + (info.stderr.end - info.stderr.start);
  let arrived = (): void => undefined;
  const complete = new Promise<void>((resolve) => (arrived = resolve));
  const count = (bytes: number): void => {
    missing -= bytes;
    if (missing <= 0) arrived();
  };
  count(0);
  const stream = attachStream(vm.transport, id, {
    observe: true,
    from: { stdout: info.stdout.start, stderr: info.stderr.start },
    onStdout: (chunk) => {
      if (direct) process.stdout.write(chunk);
      else out.push(chunk.toString("utf8"));
      count(chunk.length);
      return undefined;
    },
    onStderr: (chunk) => {
      if (output.json) err.push(chunk.toString("utf8"));
      else process.stderr.write(chunk);
      count(chunk.length);
      return undefined;
    },
    onGap: (gap) => {
      output.note(`(${gap.to - gap.from} bytes of ${gap.stream} are no longer kept)`);
      count(gap.to - gap.from);
    },
  });
  if (options.follow || !info.running) await stream.exit;
  else {
    await Promise.race([complete, stream.exit]);
    // An observer: leaving it changes nothing for the command.
    stream.detach();
  }
  if (output.json)
    output.result({ vmId: vm.id, commandId: id, stdout: out.text(), stderr: err.text() });
  else if (!direct) process.stdout.write(out.text());
  return 0;
}

/** A command's identifier. @throws ERR_VALIDATION_FLAGS */
export function requireId(id: string): string {
  if (/^[0-9a-f]{16}$/.test(id)) return id;
  throw new VmsanError({
    code: "ERR_VALIDATION_FLAGS",
    message: `Invalid command ID: ${JSON.stringify(id)}`,
    why: "A command in a guest is named by 16 hex digits.",
    fix: "See `vmsan ps VM` for the commands of a VM.",
  });
}

/** What the network policy has decided: a line each, with `--json` an object. */
export async function showDecisions(vm: Vm, follow: boolean, output: Output): Promise<number> {
  const lines = createInterface({ input: await vm.decisions({ follow }) });
  for await (const line of lines) {
    if (line === "") continue;
    const decision = JSON.parse(line) as Record<string, unknown>;
    const { seq: _seq, time, verdict, ...rest } = decision;
    output.result(decision, oneLine(`${String(time)} ${String(verdict)} ${fieldsOf(rest)}`));
  }
  output.detail("end of the log");
  return 0;
}
