/** Traces of the command line, as a collector gets them. */
import { execFile } from "node:child_process";
import { createServer } from "node:http";
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { fakeDaemon } from "../src/daemon/testing.ts";
import type { FakeDaemon } from "../src/daemon/testing.ts";
import { fakeStages } from "../src/sandbox/testing.ts";

interface Span {
  name: string;
  traceId: string;
  spanId: string;
  parentSpanId?: string;
  startTimeUnixNano: string;
  endTimeUnixNano: string;
  attributes: { key: string; value: Record<string, unknown> }[];
  status: { code?: number };
}

let daemon: FakeDaemon;
let collector: Server;
let endpoint = "";
let spans: Span[] = [];
/** What the service is called. */
let services: unknown[] = [];

interface Payload {
  resourceSpans: {
    resource: { attributes: { key: string; value: { stringValue?: string } }[] };
    scopeSpans: { spans: Span[] }[];
  }[];
}

beforeAll(async () => {
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
    let body = "";
    request.setEncoding("utf8").on("data", (text: string) => (body += text));
    request.on("end", () => {
      for (const { resource, scopeSpans } of (JSON.parse(body) as Payload).resourceSpans) {
        spans.push(...scopeSpans.flatMap((scope) => scope.spans));
        services.push(
          resource.attributes.find(({ key }) => key === "service.name")?.value.stringValue,
        );
      }
      response.setHeader("content-type", "application/json");
      response.end("{}");
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

test("one run is one trace: pull, build, boot, exec", async () => {
  const env = { OTEL_EXPORTER_OTLP_ENDPOINT: endpoint, OTEL_SERVICE_NAME: "mine" };
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
  expect(services).toContain("mine");
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
  for (const env of [{}, { OTEL_EXPORTER_OTLP_ENDPOINT: endpoint, OTEL_SDK_DISABLED: "true" }]) {
    expect(await vmsan([...RUN, "true"], env)).toEqual({ status: 0, stderr: "" });
    expect(spans).toEqual([]);
  }
});

test("a failure is told, and a collector that is not there changes no status", async () => {
  const env = { OTEL_EXPORTER_OTLP_ENDPOINT: endpoint };
  expect((await vmsan(["start", "nobody"], env)).status).toBe(1);
  expect(spans.find(({ name }) => name === "vmsan.start")?.status.code).toBe(2);
  expect(JSON.stringify(spans)).toContain("ERR_VM_NOT_FOUND");
  const nowhere = { OTEL_EXPORTER_OTLP_ENDPOINT: "http://127.0.0.1:9" };
  const { status, stderr } = await vmsan([...RUN, "exit 4"], nowhere);
  expect(status).toBe(4);
  expect(stderr).toContain("vmsan: traces: ");
});
