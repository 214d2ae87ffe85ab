/** Traces of the command line, as a collector gets them. */
import { execFile, execFileSync } from "node:child_process";
import { createServer } from "node:http";
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { fakeDaemon } from "../src/daemon/testing.ts";
import type { FakeDaemon } from "../src/daemon/testing.ts";
import { fakeStages } from "../src/sandbox/testing.ts";
import { pythonWith } from "./fixtures/venv.ts";

interface Span {
  name: string;
  traceId: string;
  spanId: string;
  parentSpanId?: string;
  startTimeUnixNano: string;
  endTimeUnixNano: string;
  attributes: { key: string; value: Record<string, unknown> }[];
  status: { code?: string };
}

let daemon: FakeDaemon;
let collector: Server;
let endpoint = "";
let spans: Span[] = [];
/** What the service is called. */
let services: unknown[] = [];

/** What was sent, by its content type. */
let types: (string | undefined)[] = [];
/** How the collector answers; undefined: never. */
let answer: number | undefined = 200;

let python = "";

/** What a collector reads in a request. @throws when it is not as OpenTelemetry defines it */
function decoded(type: string, body: Buffer): { name: string; spans: Span[] }[] {
  const words = [join(import.meta.dirname, "fixtures/otlp.py"), type];
  return JSON.parse(execFileSync(python, words, { input: body, encoding: "utf8" })) as ReturnType<
    typeof decoded
  >;
}

beforeAll(async () => {
  python = await pythonWith("otlp-1.45.2");
  const plain = fakeStages("/nowhere");
  daemon = await fakeDaemon({
    prepareBase: async (request, id, work) => {
      work.progress({ phase: "pull", item: "a", done: 0, total: 2, unit: "bytes" });
      work.progress({ phase: "pull", item: "a", done: 2, total: 2, unit: "bytes" });
      work.progress({ phase: "build", message: "disk image", done: 1, total: 1, unit: "bytes" });
      return await plain.prepareBase(request, id, work);
    },
  });
  collector = createServer((request, response) => {
    const parts: Buffer[] = [];
    request.on("data", (part: Buffer) => parts.push(part));
    request.on("end", () => {
      const body = Buffer.concat(parts);
      const type = request.headers["content-type"];
      types.push(type);
      for (const service of decoded(type ?? "", body)) {
        services.push(service.name);
        spans.push(...service.spans);
      }
      if (answer === undefined) return;
      response.writeHead(answer, { "content-type": type ?? "" });
      response.end(type === "application/x-protobuf" ? "" : "{}");
    });
  });
  await new Promise<void>((done) => collector.listen(0, "127.0.0.1", done));
  endpoint = `http://127.0.0.1:${(collector.address() as AddressInfo).port}`;
});

afterAll(async () => {
  collector?.close();
  await daemon?.close();
});

/** Run the command line; its exit status and what it wrote to standard error. */
async function vmsan(
  words: string[],
  env: Record<string, string>,
): Promise<{ status: number; stderr: string }> {
  spans = [];
  services = [];
  types = [];
  const { PATH = "" } = process.env;
  return await new Promise((done) => {
    const child = execFile(
      process.execPath,
      [join(import.meta.dirname, "../src/cli/main.ts"), ...words],
      { env: { PATH, HOME: daemon.dir, VMSAN_DIR: daemon.dir, ...env } },
      (_error, _stdout, stderr) => done({ status: child.exitCode ?? -1, stderr }),
    );
    child.stdin?.end();
  });
}

const RUN = ["run", "--driver", "fake", "--network-policy", "none", "base", "--", "sh", "-c"];

const json = (): Record<string, string> => ({
  OTEL_EXPORTER_OTLP_ENDPOINT: endpoint,
  OTEL_EXPORTER_OTLP_PROTOCOL: "http/json",
});

test.each([
  ["http/protobuf", "application/x-protobuf"],
  ["http/json", "application/json"],
])("one run is one trace in %s: pull, build, boot, exec", async (protocol, type) => {
  const env = { ...json(), OTEL_EXPORTER_OTLP_PROTOCOL: protocol, OTEL_SERVICE_NAME: "mine" };
  expect(await vmsan([...RUN, "exit 3"], env)).toMatchObject({ status: 3 });
  const named = (name: string): Span | undefined => spans.find((span) => span.name === name);
  expect(spans.map(({ name }) => name).toSorted()).toEqual([
    "boot",
    "build",
    "exec",
    "pull",
    "vmsan run",
    "vmsan.create",
  ]);
  expect(new Set(spans.map(({ traceId }) => traceId)).size).toBe(1);
  expect(spans[0]?.traceId).toMatch(/^[0-9a-f]{32}$/);
  expect([types, services]).toEqual([[type], ["mine"]]);
  expect(named("vmsan run")?.parentSpanId ?? "").toBe("");
  for (const [child, parent] of [
    ["vmsan.create", "vmsan run"],
    ["exec", "vmsan run"],
    ["pull", "vmsan.create"],
    ["build", "vmsan.create"],
    ["boot", "vmsan.create"],
  ] as const) {
    expect(named(child)?.parentSpanId, child).toBe(named(parent)?.spanId);
  }
  for (const { startTimeUnixNano, endTimeUnixNano } of spans) {
    expect(BigInt(endTimeUnixNano)).toBeGreaterThanOrEqual(BigInt(startTimeUnixNano));
  }
  // Arguments may be secrets.
  expect(JSON.stringify(spans)).not.toContain("exit 3");
  expect(JSON.stringify(named("exec")?.attributes)).toContain('"process.exit.code"');
});

test("nothing is sent unless it is asked for, nor when it is switched off", async () => {
  const off = { OTEL_SDK_DISABLED: "true" };
  for (const env of [{}, { ...json(), ...off }, { ...json(), OTEL_TRACES_EXPORTER: "none" }]) {
    expect(await vmsan([...RUN, "true"], env)).toEqual({ status: 0, stderr: "" });
    expect(spans).toEqual([]);
  }
});

test("a failure is told, and a collector that is not there changes no status", async () => {
  const env = json();
  expect((await vmsan(["start", "nobody"], env)).status).toBe(1);
  expect(spans.find(({ name }) => name === "vmsan.start")?.status.code).toBe("STATUS_CODE_ERROR");
  expect(JSON.stringify(spans)).toContain("ERR_VM_NOT_FOUND");
  const nowhere = { OTEL_EXPORTER_OTLP_ENDPOINT: "http://127.0.0.1:9" };
  const { status, stderr } = await vmsan([...RUN, "exit 4"], nowhere);
  expect(status).toBe(4);
  expect(stderr).toBe("vmsan: traces: connect ECONNREFUSED 127.0.0.1:9\n");
});

test("a collector that answers nothing, or refuses, changes neither status nor output", async () => {
  for (const status of [undefined, 400, 503]) {
    answer = status;
    const env = { ...json(), OTEL_EXPORTER_OTLP_TIMEOUT: "500" };
    const ended = await vmsan([...RUN, "exit 5"], env);
    expect([status, ended.status]).toEqual([status, 5]);
    expect(ended.stderr).toMatch(/^vmsan: traces: .+\n$/);
  }
  answer = 200;
});

test("spans are sent in protocol buffers unless JSON is asked for; what cannot be done is said", async () => {
  const env = { OTEL_EXPORTER_OTLP_ENDPOINT: endpoint, OTEL_TRACES_EXPORTER: "" };
  expect(await vmsan([...RUN, "true"], env)).toEqual({ status: 0, stderr: "" });
  expect([spans.length, types]).toEqual([6, ["application/x-protobuf"]]);
  for (const [word, more] of [
    ["the protocol grpc is not spoken", { OTEL_EXPORTER_OTLP_PROTOCOL: "grpc" }],
    ["OTEL_TRACES_EXPORTER=zipkin is not offered", { OTEL_TRACES_EXPORTER: "zipkin" }],
  ] as const) {
    const { status, stderr } = await vmsan([...RUN, "exit 6"], { ...env, ...more });
    expect([status, spans.length, stderr.split("\n").length]).toEqual([6, 0, 2]);
    expect(stderr).toContain(word);
  }
});

test("a trace goes on where the caller's is", async () => {
  const [id, caller] = ["0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"];
  const env = { OTEL_EXPORTER_OTLP_ENDPOINT: endpoint, TRACEPARENT: `00-${id}-${caller}-01` };
  await vmsan([...RUN, "true"], env);
  expect(spans.find(({ name }) => name === "vmsan run")?.parentSpanId).toBe(caller);
  expect(new Set(spans.map(({ traceId }) => traceId))).toEqual(new Set([id]));
  // Which is not recorded, so that this is not either.
  await vmsan([...RUN, "true"], { ...env, TRACEPARENT: `00-${id}-${caller}-00` });
  expect(spans).toEqual([]);
  await vmsan([...RUN, "true"], { ...env, TRACEPARENT: "nonsense" });
  expect(spans.find(({ name }) => name === "vmsan run")?.parentSpanId ?? "").toBe("");
});
