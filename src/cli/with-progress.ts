/** Long work of a command: progress while it runs, then its result. */
import type { ProgressSink } from "../model/progress.ts";
import { interruptSignal } from "./command.ts";
import type { Context } from "./command.ts";
import { progressView } from "./progress.ts";

/** What long work is given. */
export interface WorkHandles {
  onProgress: ProgressSink;
  signal: AbortSignal;
}

/**
 * Run long work with progress, then report its result, once the terminal is free of bars.
 * An interrupt ends the work and gives the usual status.
 * @param quiet progress on a terminal alone, see {@link progressView}
 */
export async function withProgress<T>(
  context: Context<object>,
  body: (work: WorkHandles) => Promise<T>,
  report: (result: T) => void,
  quiet = false,
): Promise<number> {
  const view = progressView(context.output, quiet);
  const interrupt = interruptSignal();
  try {
    const result = await body({ onProgress: view.sink, signal: interrupt.signal });
    view.close();
    report(result);
    return 0;
  } catch (error) {
    view.close();
    if (!interrupt.signal.aborted) throw error;
    return 128 + interrupt.number();
  } finally {
    view.close();
    interrupt.dispose();
  }
}
