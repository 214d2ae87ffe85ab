/** Spans by OpenTelemetry's own SDK; see tracing.ts. */
import { DiagLogLevel, SpanKind, SpanStatusCode, context, diag, trace } from "@opentelemetry/api";
import type { Attributes, Span } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import {
  defaultResource,
  detectResources,
  envDetector,
  resourceFromAttributes,
} from "@opentelemetry/resources";
import { AlwaysOffSampler, BatchSpanProcessor, TracerProvider } from "@opentelemetry/sdk-trace";
import type { StreamExit } from "../../agent/spec.ts";
import { VmsanError, messageOf } from "../../model/errors.ts";
import type { ProgressSink } from "../../model/progress.ts";
import { packageVersion } from "../../util/package.ts";
import { callersContext, exporterOf, samplerOf } from "./environment.ts";
import { say } from "./say.ts";
import type { SpanAttributes } from "./span.ts";

/**
 * The tracer: of the program that uses the SDK where that traces by itself, so that its spans are above ours;
 * else one that sends them where the environment says.
 */
async function makeTracer(): Promise<ReturnType<typeof trace.getTracer>> {
  const version = packageVersion();
  const manager = new AsyncLocalStorageContextManager().enable();
  // Refused where the program has set up its own.
  if (!context.setGlobalContextManager(manager)) manager.disable();
  const exporter = await exporterOf();
  const provider = new TracerProvider({
    resource: defaultResource()
      .merge(resourceFromAttributes({ "service.name": "vmsan", "service.version": version }))
      .merge(detectResources({ detectors: [envDetector] })),
    spanProcessors: exporter === undefined ? [] : [new BatchSpanProcessor({ exporter })],
    sampler: exporter === undefined ? new AlwaysOffSampler() : samplerOf(),
  });
  if (!trace.setGlobalTracerProvider(provider)) return trace.getTracer("vmsan", version);
  const quiet = (): void => undefined;
  const logger = { error: say, warn: quiet, info: quiet, debug: quiet, verbose: quiet };
  diag.setLogger(logger, { logLevel: DiagLogLevel.ERROR, suppressOverrideMessage: true });
  // What is left goes before the process does.
  process.once("beforeExit", () => {
    provider.shutdown().catch((error: unknown) => say(messageOf(error)));
  });
  return provider.getTracer("vmsan", version);
}

const tracer = await makeTracer();

/** Only what is known. */
function known(attributes: SpanAttributes): Attributes {
  const entries = Object.entries(attributes).filter(([, value]) => value !== undefined);
  return Object.fromEntries(entries) as Attributes;
}

function fail(span: Span, error: unknown): void {
  const message = messageOf(error);
  if (error instanceof VmsanError) span.setAttribute("error.type", error.code);
  span.setStatus({ code: SpanStatusCode.ERROR, message });
}

/** Spans of the phases of long work: one ends when the next one begins. */
function phaseSpans(): { sink: ProgressSink; end: () => void } {
  let phase = "";
  let span: Span | undefined;
  return {
    sink: (event) => {
      if (event.phase === phase) return;
      span?.end();
      ({ phase } = event);
      span = tracer.startSpan(phase);
    },
    end: () => span?.end(),
  };
}

/** See tracing.ts: traced. */
export async function inSpan<T>(
  name: string,
  attributes: SpanAttributes,
  body: (phases: ProgressSink) => Promise<T>,
  describe: (result: T) => SpanAttributes,
): Promise<T> {
  const span = tracer.startSpan(name, { attributes: known(attributes) });
  const own = trace.setSpan(context.active(), span);
  return await context.with(own, async () => {
    const phases = phaseSpans();
    // Progress comes from a socket, where this context is not.
    const sink: ProgressSink = (event) => context.with(own, () => phases.sink(event));
    try {
      const result = await body(sink);
      span.setAttributes(known(describe(result)));
      return result;
    } catch (error) {
      fail(span, error);
      throw error;
    } finally {
      phases.end();
      span.end();
    }
  });
}

/** See tracing.ts: tracedProgram. */
export async function belowCaller<T>(body: () => Promise<T>): Promise<T> {
  return await context.with(callersContext(), body);
}

/** See tracing.ts: traceCommand. */
export function commandSpan(attributes: SpanAttributes, exit: Promise<StreamExit>): void {
  const options = { kind: SpanKind.CLIENT, attributes: known(attributes) };
  const span = tracer.startSpan("exec", options);
  exit.then(
    ({ exitCode, timedOut, oomKilled }) => {
      span.setAttribute("process.exit.code", exitCode);
      if (timedOut) span.setAttribute("vmsan.timed_out", true);
      if (oomKilled) span.setAttribute("vmsan.oom_killed", true);
      span.end();
    },
    (error: unknown) => {
      fail(span, error);
      span.end();
    },
  );
}
