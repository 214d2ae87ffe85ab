/** What `--timing` and `--trace` give at the end of a command's process. */
import { writeFileSync } from "node:fs";
import { timing, timingLines, traceEvents } from "../client/tracing/timeline.ts";
import { VmsanError, messageOf } from "../model/errors.ts";
import type { Output } from "./output.ts";

/**
 * Tell where a command's time has gone. A trace that cannot be written is the error of a process that would else end well.
 * @param title what was done
 * @param say on standard error: lines, or with --json one JSON object
 * @param file path of a trace to write
 */
export function tellTiming(
  title: string,
  say: boolean,
  file: string | undefined,
  output: Output,
): void {
  const told = timing();
  if (told === undefined) return;
  if (say && output.json) process.stderr.write(`${JSON.stringify({ timing: told })}\n`);
  else if (say) output.note(...timingLines(told));
  if (file === undefined) return;
  try {
    writeFileSync(file, `${JSON.stringify(traceEvents(told, title))}\n`);
  } catch (error) {
    const status = output.failure(
      new VmsanError(
        {
          code: "ERR_TRACE_FILE",
          message: `Cannot write the trace ${file}`,
          why: messageOf(error),
          fix: "Give a path that can be written.",
        },
        error,
      ),
    );
    process.exitCode ||= status;
  }
}
