import { TraceFlags, trace } from "@opentelemetry/api";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { callersContext, exporterOf, samplerOf } from "./environment.ts";

let said: string;
beforeEach(() => {
  said = "";
  vi.spyOn(process.stderr, "write").mockImplementation((text) => {
    said += String(text);
    return true;
  });
});
afterEach(() => {
  vi.unstubAllEnvs();
  vi.restoreAllMocks();
});

function set(variables: Record<string, string>): void {
  for (const [name, value] of Object.entries(variables)) vi.stubEnv(name, value);
}

test("spans go by the protocol that is asked for, or a word is said", async () => {
  set({ OTEL_EXPORTER_OTLP_ENDPOINT: "http://127.0.0.1:9" });
  const { OTLPTraceExporter: Proto } = await import("@opentelemetry/exporter-trace-otlp-proto");
  const { OTLPTraceExporter: Json } = await import("@opentelemetry/exporter-trace-otlp-http");
  for (const [protocol, traces, exporter, word] of [
    ["", "", Proto, ""],
    ["http/protobuf", "", Proto, ""],
    ["http/json", "", Json, ""],
    ["grpc", "http/json", Json, ""],
    ["grpc", "", undefined, "the protocol grpc is not spoken"],
    ["http/json", "carrier/pigeon", undefined, "the protocol carrier/pigeon is not spoken"],
  ] as const) {
    said = "";
    set({
      OTEL_EXPORTER_OTLP_PROTOCOL: protocol,
      OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: traces,
    });
    const made = await exporterOf();
    expect(made?.constructor, `${protocol} ${traces}`).toBe(exporter);
    expect(said === "", said).toBe(word === "");
    expect(said).toContain(word);
    await made?.shutdown();
  }
  set({ OTEL_EXPORTER_OTLP_ENDPOINT: "localhost:4318" });
  expect(await exporterOf()).toBeUndefined();
  expect(said).toContain("the endpoint localhost:4318 is no http:// or https:// address");
});

test("traces are chosen as the specification has it", () => {
  for (const [name, ratio, sampler, word] of [
    ["", "", "ParentBased{root=AlwaysOnSampler", ""],
    ["always_on", "", "AlwaysOnSampler", ""],
    ["always_off", "", "AlwaysOffSampler", ""],
    ["traceidratio", "0.25", "TraceIdRatioBased{0.25}", ""],
    ["traceidratio", "", "TraceIdRatioBased{1}", ""],
    ["traceidratio", "half", "TraceIdRatioBased{1}", "ARG=half is no number from 0 to 1"],
    ["parentbased_always_on", "", "ParentBased{root=AlwaysOnSampler", ""],
    ["parentbased_always_off", "", "ParentBased{root=AlwaysOffSampler", ""],
    ["parentbased_traceidratio", "0", "ParentBased{root=TraceIdRatioBased{0}", ""],
    ["traceidratio", "-1", "TraceIdRatioBased{1}", "ARG=-1 is no number from 0 to 1"],
    ["xray", "", "ParentBased{root=AlwaysOnSampler", "OTEL_TRACES_SAMPLER=xray is not offered"],
    ["constructor", "", "ParentBased{root=AlwaysOnSampler", "=constructor is not offered"],
  ] as const) {
    said = "";
    set({ OTEL_TRACES_SAMPLER: name, OTEL_TRACES_SAMPLER_ARG: ratio });
    expect(samplerOf().toString().startsWith(sampler), `${name} ${ratio}`).toBe(true);
    expect(said === "", said).toBe(word === "");
    expect(said).toContain(word);
  }
});

test("the caller's span is known, and nonsense is none", () => {
  const traceId = "0af7651916cd43dd8448eb211c80319c";
  set({ TRACEPARENT: `00-${traceId}-b7ad6b7169203331-01`, TRACESTATE: "vendor=1" });
  const span = trace.getSpanContext(callersContext());
  expect(span).toMatchObject({ traceId, traceFlags: TraceFlags.SAMPLED, isRemote: true });
  expect(span?.traceState?.get("vendor")).toBe("1");
  set({ TRACEPARENT: "nonsense" });
  expect(trace.getSpanContext(callersContext())).toBeUndefined();
});
