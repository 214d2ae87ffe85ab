/**
 * tracing/: spans of what the client does, for OpenTelemetry. Takes work and its progress, gives it to the
 * collector that the standard environment variables name.
 *
 * tracing.ts: the switch. Without those variables nothing else of it is loaded.
 */
import type { StreamExit } from "../../agent/spec.ts";
import type { ProgressSink } from "../../model/progress.ts";
import type * as Otel from "./otel.ts";
import { say } from "./say.ts";
import type { SpanAttributes } from "./span.ts";
import { beginStep, noteCommand } from "./timeline.ts";

let loaded: typeof Otel | undefined;
/** Whether the environment asks for traces, once it has been looked at. */
let asked: boolean | undefined;

/** Whether the environment asks for traces. */
function areTracesAskedFor(): boolean {
  const {
    OTEL_EXPORTER_OTLP_ENDPOINT: endpoint = "",
    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: traces = "",
    OTEL_SDK_DISABLED: disabled = "",
    OTEL_TRACES_EXPORTER: exporters = "",
  } = process.env;
  if (disabled.toLowerCase() === "true" || endpoint + traces === "") return false;
  const names = (exporters || "otlp").split(",").map((name) => name.trim());
  if (names.includes("otlp")) return true;
  if (!names.includes("none"))
    say(`none are sent: OTEL_TRACES_EXPORTER=${exporters} is not offered, otlp is`);
  return false;
}

/** Load what makes spans, if they are asked for. */
export async function loadTracing(): Promise<void> {
  asked ??= areTracesAskedFor();
  if (asked) loaded ??= await import("./otel.ts");
}

/**
 * Do work in a span.
 * @param body is given where its progress goes: each phase becomes a span below
 * @param describe what the result says of the span
 */
export async function traced<T>(
  name: string,
  attributes: SpanAttributes,
  body: (phases: ProgressSink) => Promise<T>,
  describe: (result: T) => SpanAttributes = () => ({}),
): Promise<T> {
  await loadTracing();
  if (loaded === undefined) return await body(() => undefined);
  return await loaded.inSpan(name, attributes, body, describe);
}

/** Do all of a program's work in a span, below that of whoever has called the program. */
export async function tracedProgram<T>(
  name: string,
  body: () => Promise<T>,
  describe: (result: T) => SpanAttributes,
): Promise<T> {
  await loadTracing();
  if (loaded === undefined) return await body();
  const { belowCaller, inSpan } = loaded;
  return await belowCaller(async () => await inSpan(name, {}, body, describe));
}

/** A span of a command in a guest, once {@link loadTracing} has been called: from now to its end. */
export function traceCommand(attributes: SpanAttributes, exit: Promise<StreamExit>): void {
  loaded?.commandSpan(attributes, exit);
  const ended = beginStep("exec");
  exit.then(({ durationMs }) => {
    ended();
    noteCommand(durationMs);
  }, ended);
}

/** Progress told to both. */
export function both(one: ProgressSink, other: ProgressSink | undefined): ProgressSink {
  return (event) => {
    one(event);
    other?.(event);
  };
}
