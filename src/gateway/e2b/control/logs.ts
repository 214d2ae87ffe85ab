/** What a sandbox's machine printed: the lines of its console, with the times that its kernel wrote before them. */
import type { Vm } from "../../../client/vm.ts";

/** Most bytes of a console that are looked at: its end. */
const MAX_BYTES = 4 << 20;
const MAX_LINES = 1_000;

/** One line, as clients read it. */
interface LogEntry {
  /** RFC 3339. */
  timestamp: string;
  level: "debug" | "info" | "warn" | "error";
  message: string;
  fields: Record<string, string>;
}

const LEVELS: readonly string[] = ["debug", "info", "warn", "error"];
// Colours and other sequences of terminals.
// eslint-disable-next-line no-control-regex -- these bytes are what is looked for
const ESCAPES = /\u001B(?:\[[0-9;?]*[A-Za-z]|[@-_])/g;

/** Lines of a console. @param startedAt when the machine began, in milliseconds */
export function entriesOf(text: string, startedAt: number): LogEntry[] {
  let at = startedAt;
  return text
    .split("\n")
    .map((line) => line.replaceAll(ESCAPES, "").trimEnd())
    .filter((line) => line !== "")
    .map((line) => {
      const [, seconds, rest] = /^\[ *(\d+\.\d+)\] ?(.*)$/.exec(line) ?? [];
      if (seconds !== undefined) at = startedAt + Number(seconds) * 1000;
      const message = rest ?? line;
      const level = /\b(?:panic|BUG:|Oops|error)\b/i.test(message) ? "error" : "info";
      return {
        timestamp: new Date(at).toISOString(),
        level,
        message,
        fields: { logger: "console" },
      };
    });
}

/** The lines that a query wants. @param query `start` or `cursor` (ms), `limit`, `direction`, `level`, `search` */
export function selectEntries(all: readonly LogEntry[], query: URLSearchParams): LogEntry[] {
  const limit = Math.min(
    MAX_LINES,
    Math.max(0, Number(query.get("limit") ?? MAX_LINES) || MAX_LINES),
  );
  const backward = query.get("direction") === "backward";
  const text = query.get("cursor") ?? query.get("start");
  const from = text === null ? undefined : Number(text);
  const least = LEVELS.indexOf(query.get("level") ?? "debug");
  const search = query.get("search") ?? "";
  const wanted = all.filter(({ timestamp, level, message }) => {
    const at = Date.parse(timestamp);
    if (from !== undefined && (backward ? at > from : at < from)) return false;
    return LEVELS.indexOf(level) >= least && message.includes(search);
  });
  return (backward ? wanted.toReversed() : wanted).slice(0, limit);
}

/** What the console of a sandbox says, as the call about it answers. @param version `v2` or none */
export async function sandboxLogs(
  vm: Vm,
  query: URLSearchParams,
  version: string | undefined,
): Promise<object> {
  let tail = Buffer.alloc(0);
  for await (const chunk of await vm.console()) {
    tail = Buffer.concat([tail, chunk as Buffer]).subarray(-MAX_BYTES);
  }
  const { startedAt, createdAt } = vm.view;
  const all = entriesOf(tail.toString("utf8"), Date.parse(startedAt ?? createdAt));
  const entries = selectEntries(all, query);
  if (version === "v2") return { logs: entries };
  return { logs: entries.map(asLine), logEntries: entries };
}

/** An entry as clients of the path without a version read it: E2B's command line takes the line for JSON with a level. */
export function asLine({ timestamp, level, message, fields }: LogEntry): object {
  return { timestamp, line: JSON.stringify({ ...fields, level, message }) };
}
