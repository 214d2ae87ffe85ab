/** A log: lines with a time stamp, in a file that is rotated by size. */
import { appendFileSync, renameSync, statSync } from "node:fs";
import { errnoOf, messageOf } from "../model/errors.ts";

const MAX_BYTES = 8 << 20;
const KEPT = 3;

/** Whether lines are JSON objects, for those who collect logs. */
const isJson = (): boolean => process.env["VMSAN_LOG_FORMAT"] === "json";

/** Writes what the daemon has to say. */
export interface Log {
  /** @param fields behind the message, or instead of an empty one */
  info(message: string, fields?: object): void;
  /** A failure; the error's cause chain is written, never a request's secrets. */
  error(message: string, error?: unknown): void;
}

/** An error with its causes on one line. */
function describe(error: unknown): string {
  let text = messageOf(error);
  let cause = error instanceof Error ? error.cause : undefined;
  for (let depth = 0; cause !== undefined && depth < 5; depth += 1) {
    text += ` <- ${messageOf(cause)}`;
    cause = cause instanceof Error ? cause.cause : undefined;
  }
  return text.replaceAll("\n", "\\n");
}

/**
 * A log in a file.
 * @param path absolute; `path.1` … `path.3` are the older ones
 */
export function fileLog(path: string): Log {
  let size = currentSize(path);
  const write = (level: string, message: string, fields?: object): void => {
    const time = new Date().toISOString();
    const said = message === "" ? {} : { message };
    const rest = fields === undefined ? "" : JSON.stringify(fields);
    const words = [time, level, message.replaceAll("\n", "\\n"), rest].filter(
      (word) => word !== "",
    );
    const line = isJson()
      ? `${JSON.stringify({ time, level, ...said, ...fields })}\n`
      : `${words.join(" ")}\n`;
    try {
      if (size + line.length > MAX_BYTES) {
        for (let n = KEPT; n > 0; n -= 1)
          rotate(n === 1 ? path : `${path}.${n - 1}`, `${path}.${n}`);
        size = 0;
      }
      appendFileSync(path, line, { mode: 0o600 });
      size += line.length;
    } catch (error) {
      // A full disk must not stop VMs: the last resort is standard error.
      process.stderr.write(`cannot write ${path}: ${messageOf(error)}\n${line}`);
    }
  };
  return {
    info: (message, fields) => write("info", message, fields),
    error: (message, error) =>
      write("error", error === undefined ? message : `${message}: ${describe(error)}`),
  };
}

function currentSize(path: string): number {
  try {
    return statSync(path).size;
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return 0;
    throw error;
  }
}

function rotate(from: string, to: string): void {
  try {
    renameSync(from, to);
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
  }
}
