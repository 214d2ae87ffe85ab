/** What OpenTelemetry's standard variables say of traces, as far as its SDK leaves that to the program. */
import { ROOT_CONTEXT, defaultTextMapGetter } from "@opentelemetry/api";
import type { Context } from "@opentelemetry/api";
import { W3CTraceContextPropagator } from "@opentelemetry/core";
import type { SpanExporter, Sampler } from "@opentelemetry/sdk-trace";
import {
  AlwaysOffSampler,
  AlwaysOnSampler,
  ParentBasedSampler,
  TraceIdRatioBasedSampler,
} from "@opentelemetry/sdk-trace";
import { say } from "./say.ts";

/** How long a collector may take, in milliseconds, where the environment does not say. */
const EXPORT_MS = 3_000;

/** A variable's value; an empty one is as good as none. */
function variable(name: string): string | undefined {
  const value = process.env[name]?.trim();
  return value === "" ? undefined : value;
}

/** The variable for traces, else the one for all signals. */
function otlp(name: string): string | undefined {
  return variable(`OTEL_EXPORTER_OTLP_TRACES_${name}`) ?? variable(`OTEL_EXPORTER_OTLP_${name}`);
}

/** What sends spans to the collector; undefined: nothing can, which was said. */
export async function exporterOf(): Promise<SpanExporter | undefined> {
  const protocol = otlp("PROTOCOL") ?? "http/protobuf";
  const endpoint = otlp("ENDPOINT") ?? "";
  if (!/^https?:\/\//i.test(endpoint) || !URL.canParse(endpoint)) {
    say(`none are sent: the endpoint ${endpoint} is no http:// or https:// address`);
    return undefined;
  }
  const options = otlp("TIMEOUT") === undefined ? { timeoutMillis: EXPORT_MS } : {};
  if (protocol === "http/protobuf") {
    const { OTLPTraceExporter } = await import("@opentelemetry/exporter-trace-otlp-proto");
    return new OTLPTraceExporter(options);
  }
  if (protocol === "http/json") {
    const { OTLPTraceExporter } = await import("@opentelemetry/exporter-trace-otlp-http");
    return new OTLPTraceExporter(options);
  }
  say(
    `none are sent: the protocol ${protocol} is not spoken; set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, and the collector's port for HTTP (4318)`,
  );
  return undefined;
}

/** Of how many traces each is sent. */
function ratioOf(): TraceIdRatioBasedSampler {
  const text = variable("OTEL_TRACES_SAMPLER_ARG") ?? "1";
  const ratio = Number(text);
  if (ratio >= 0 && ratio <= 1) return new TraceIdRatioBasedSampler(ratio);
  say(`all are sent: OTEL_TRACES_SAMPLER_ARG=${text} is no number from 0 to 1`);
  return new TraceIdRatioBasedSampler(1);
}

/** Which traces are sent. */
export function samplerOf(): Sampler {
  const name = variable("OTEL_TRACES_SAMPLER") ?? "parentbased_always_on";
  const [, parentBased, rule] = /^(parentbased_)?(.*)$/.exec(name) ?? [];
  const roots: Record<string, () => Sampler> = {
    always_on: () => new AlwaysOnSampler(),
    always_off: () => new AlwaysOffSampler(),
    traceidratio: () => ratioOf(),
  };
  const make = Object.hasOwn(roots, rule ?? "") ? roots[rule ?? ""] : undefined;
  if (make === undefined) {
    say(
      `OTEL_TRACES_SAMPLER=${name} is not offered: all are sent, but for what the caller has not sampled`,
    );
    return new ParentBasedSampler({ root: new AlwaysOnSampler() });
  }
  return parentBased === undefined ? make() : new ParentBasedSampler({ root: make() });
}

/** The span of the program that has called this one (`TRACEPARENT`), as a context. */
export function callersContext(): Context {
  const carrier = {
    traceparent: variable("TRACEPARENT"),
    tracestate: variable("TRACESTATE"),
  };
  return new W3CTraceContextPropagator().extract(ROOT_CONTEXT, carrier, defaultTextMapGetter);
}
