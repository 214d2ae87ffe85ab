/** What a guest stream is asked to be and how it ended; protocol/README.md sections 4, 5, 7. */
import { constants } from "node:os";
import type { ExecResult } from "../model/process.ts";
import type { ErrorInfo } from "../model/errors.ts";
import { protocolError } from "./frames.ts";
import { agentError } from "./transport.ts";

/** Size and kind of a terminal. */
export interface TtySpec {
  rows: number;
  cols: number;
  term: string;
}

/** Body of START; `id` is chosen by the stream's client. */
export interface StreamSpec {
  kind:
    | "exec"
    | "untar"
    | "fill"
    | "tar"
    | "read"
    | "write"
    | "dial"
    | "listen"
    | "watch"
    | "program"
    | "ssh";
  argv?: string[];
  env?: string[];
  workdir?: string;
  user?: string;
  tty?: TtySpec;
  /** False: the command's input is /dev/null. */
  stdin?: boolean;
  detach?: boolean;
  /** With `detach`: output waits for whoever takes it; nothing is dropped to make room. */
  hold?: boolean;
  timeoutMs?: number;
  graceMs?: number;
  label?: string;
  /** Bytes of output kept in the guest: 4 MiB, 1 MiB detached, at most 64 MiB. */
  ringBytes?: number;
  path?: string;
  override?: boolean;
  recursive?: boolean;
  network?: "tcp" | "unix";
  address?: string;
  mode?: number;
  inPlace?: boolean;
  noFollow?: boolean;
  shape?: "volume" | "tree" | "file";
  writable?: boolean;
  gid?: number;
  attributes?: { prefix: string; values: Record<string, string> };
  parents?: boolean;
  owners?: boolean;
  follow?: boolean;
  offset?: number;
  length?: number;
  /** Of kind ssh: who may log in, as lines of a file of that name. */
  authorizedKeys?: string[];
}

/** How a stream ended: an {@link ExecResult}, and what went wrong inside the agent. */
export interface StreamExit extends ExecResult {
  error?: ErrorInfo;
}

/** Where an output begins and ends in the guest's ring, in bytes since the stream's start. */
export interface OutputRange {
  start: number;
  end: number;
}

/** One stream as the agent lists it. */
export interface StreamInfo {
  id: string;
  kind: string;
  label: string;
  argv: string[];
  pid: number;
  user: string;
  tty: boolean;
  detach: boolean;
  startedAt: string;
  running: boolean;
  attached: number;
  exit?: StreamExit;
  stdout: OutputRange;
  stderr: OutputRange;
}

const STREAM_ID = /^[0-9a-f]{16}$/;

/** Whether the text is a stream's identifier: 16 hex digits. */
export function isStreamId(text: string): boolean {
  return STREAM_ID.test(text);
}

/** An offset that fits a JavaScript number. */
export function toOffset(value: bigint | string): number {
  const number = typeof value === "string" && !/^\d{1,20}$/.test(value) ? -1 : Number(value);
  if (!Number.isSafeInteger(number) || number < 0) {
    throw protocolError(`An offset of ${String(value).slice(0, 40)}.`);
  }
  return number;
}

/** A decimal-string offset in a JSON object; 0 when absent. */
export function offsetField(value: Record<string, unknown>, key: string): number {
  const field = value[key];
  if (field === undefined) return 0;
  return toOffset(
    typeof field === "number" ? String(field) : typeof field === "string" ? field : "?",
  );
}

/** Check EXIT's JSON. */
export function parseExit(value: Record<string, unknown>): StreamExit {
  const exitCode = value["exitCode"];
  const durationMs = value["durationMs"];
  const signal = value["signal"];
  if (
    typeof exitCode !== "number" ||
    !Number.isInteger(exitCode) ||
    exitCode < 0 ||
    exitCode > 255
  ) {
    throw protocolError("An exit code that is not a number from 0 to 255.");
  }
  return {
    exitCode,
    ...(typeof signal === "string" && /^SIG[A-Z0-9+-]{1,12}$/.test(signal) ? { signal } : {}),
    timedOut: value["timedOut"] === true,
    oomKilled: value["oomKilled"] === true,
    durationMs: typeof durationMs === "number" && durationMs >= 0 ? durationMs : 0,
    ...(value["error"] === undefined || value["error"] === null
      ? {}
      : { error: agentError(value["error"], "The guest's agent failed").toJSON() }),
  };
}

/** Check one entry of the agent's list. */
export function parseStreamInfo(value: unknown): StreamInfo {
  if (typeof value !== "object" || value === null)
    throw protocolError("A stream that is no object.");
  const given = value as Record<string, unknown>;
  const text = (key: string): string => {
    const field = given[key];
    return typeof field === "string" ? field : "";
  };
  const count = (key: string): number => {
    const field = given[key];
    return typeof field === "number" && Number.isFinite(field) ? field : 0;
  };
  const range = (key: string): OutputRange => {
    const field = (given[key] ?? {}) as Record<string, unknown>;
    return { start: offsetField(field, "start"), end: offsetField(field, "end") };
  };
  const id = text("id");
  if (!isStreamId(id)) throw protocolError("A stream whose identifier is not 16 hex digits.");
  const argv = Array.isArray(given["argv"]) ? given["argv"] : [];
  const exit = given["exit"];
  return {
    id,
    kind: text("kind"),
    label: text("label"),
    argv: argv.filter((word): word is string => typeof word === "string"),
    pid: count("pid"),
    user: text("user"),
    tty: given["tty"] === true,
    detach: given["detach"] === true,
    startedAt: text("startedAt"),
    running: given["running"] === true,
    attached: count("attached"),
    ...(typeof exit === "object" && exit !== null
      ? { exit: parseExit(exit as Record<string, unknown>) }
      : {}),
    stdout: range("stdout"),
    stderr: range("stderr"),
  };
}

/** Number of a signal given as `SIGTERM`, `TERM` or `15`; undefined when there is none such. */
export function signalNumber(signal: string | number): number | undefined {
  const text = String(signal).toUpperCase();
  if (/^\d{1,2}$/.test(text)) {
    const number = Number(text);
    return number >= 1 && number <= 64 ? number : undefined;
  }
  const name = text.startsWith("SIG") ? text : `SIG${text}`;
  return (constants.signals as Record<string, number>)[name];
}
