/** /metrics as Prometheus's own parser reads it, and the dashboard that shows it. */
import { execFileSync, spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { fakeDaemon } from "../../src/daemon/testing.ts";
import type { FakeDaemon } from "../../src/daemon/testing.ts";
import { Keys } from "../../src/gateway/access/keys.ts";
import { startGateway } from "../../src/gateway/gateway.ts";
import { metricsText } from "../../src/gateway/metrics/text.ts";
import { Vmsan } from "../../src/index.ts";
import { layoutOf } from "../../src/util/paths.ts";
import { unpackDebian } from "../fixtures/debian.ts";
import { kept } from "../fixtures/kept.ts";

let daemon: FakeDaemon;
let gateway: Awaited<ReturnType<typeof startGateway>>;
let keys: Keys;

beforeAll(async () => {
  daemon = await fakeDaemon();
  keys = new Keys(layoutOf(daemon.dir).gateway);
  gateway = await startGateway({
    dir: daemon.dir,
    listen: "127.0.0.1:0",
    metricsListen: "127.0.0.1:0",
  });
});

afterAll(async () => {
  await gateway?.close();
  await daemon?.close();
});

interface Parsed {
  name: string;
  type: string;
  samples: [name: string, labels: Record<string, string>, value: number][];
}

/** Debian's, which python3-prometheus-client belongs to. */
const PYTHON = "/usr/bin/python3";

const PARSE = `
import json, sys
from prometheus_client.parser import text_string_to_metric_families
print(json.dumps([{"name": f.name, "type": f.type, "samples": [[s.name, s.labels, s.value] for s in f.samples]}
  for f in text_string_to_metric_families(sys.stdin.read())]))`;

/** The text as the reference parser understands it; fails where it does not. */
function parse(text: string): Parsed[] {
  const json = execFileSync(PYTHON, ["-c", PARSE], {
    input: text,
    encoding: "utf8",
    stdio: "pipe",
  });
  return JSON.parse(json) as Parsed[];
}

const hasParser = spawnSync(PYTHON, ["-c", "import prometheus_client.parser"]).status === 0;
const whenParsed = test.skipIf(!hasParser);

const scrape = async (url: string, headers: Record<string, string> = {}): Promise<Response> =>
  await fetch(url, { headers });

whenParsed("what happened is counted, and its own parser reads it", async () => {
  const vmsan = new Vmsan({ dir: daemon.dir, start: false });
  const vm = await vmsan.create({ name: "web", networkPolicy: "none", driver: "fake" });
  await vm.exec(["true"]);
  await vm.exec(["false"]);
  for (let n = 0; n < 500; n += 1) {
    daemon.decide(vm.id, { verdict: "denied", protocol: "tcp", rule: "default-deny" });
  }
  const reply = await scrape(gateway.metricsUrl ?? "");
  expect(reply.headers.get("content-type")).toBe("text/plain; version=0.0.4; charset=utf-8");
  const families = parse(await reply.text());
  const value = (name: string, labels: Record<string, string> = {}): number | undefined =>
    families
      .flatMap(({ samples }) => samples)
      .find(
        ([found, has]) =>
          found === name && Object.entries(labels).every(([key, text]) => has[key] === text),
      )?.[2];
  expect(value("vmsan_daemon_up")).toBe(1);
  expect(value("vmsan_vms", { status: "running" })).toBe(1);
  expect(value("vmsan_vm_start_seconds_count", { driver: "fake" })).toBe(1);
  expect(value("vmsan_vm_start_seconds_bucket", { driver: "fake", le: "+Inf" })).toBe(1);
  expect(value("vmsan_execs_ended_total", { outcome: "ok" })).toBe(1);
  expect(value("vmsan_execs_ended_total", { outcome: "failed" })).toBe(1);
  // All of them, also those of which no event tells.
  expect(value("vmsan_network_decisions_total", { verdict: "denied" })).toBe(500);
  expect(value("vmsan_vm_resident_memory_bytes", { name: "web" })).toBeGreaterThan(1 << 20);
  expect(value("vmsan_gateway_cpu_seconds_total")).toBeGreaterThan(0);
  expect(families.filter(({ type }) => type === "unknown")).toEqual([]);
  expect(new Set(families.map(({ name }) => name)).size).toBe(families.length);
});

/** Prometheus' own tool, on some input. */
async function promtool(words: string[], input: string): Promise<{ status: number; said: string }> {
  const place = await kept("promtool", async (dir) => await unpackDebian("prometheus", dir));
  const argv = [join(place, "usr/bin/promtool"), ...words] as const;
  const { status, stdout, stderr } = spawnSync(argv[0], argv.slice(1), { input, encoding: "utf8" });
  return { status: status ?? -1, said: stdout + stderr };
}

test("promtool has no fault to find", async () => {
  const text = await (await scrape(gateway.metricsUrl ?? "")).text();
  const check = async (input: string): Promise<{ status: number; said: string }> =>
    await promtool(["check", "metrics"], input);
  expect(await check(text)).toEqual({ status: 0, said: "" });
  // It would have.
  expect((await check(`${text}vmsan_vms{status="running"} many\n`)).status).not.toBe(0);
  expect((await check("# HELP a One.\n# TYPE a counter\na 1\n")).said).toContain("_total");
});

whenParsed("values of labels cannot forge lines", () => {
  const hostile = 'a"} 1\nforged 1\n# \\';
  const family = { name: "x", help: "One.", type: "gauge" as const };
  const text = metricsText([{ ...family, samples: [{ labels: { l: hostile }, value: 2 }] }]);
  expect(parse(text)).toEqual([{ name: "x", type: "gauge", samples: [["x", { l: hostile }, 2]] }]);
  expect(() => parse(`${text}x{ 1`)).toThrow();
});

test("an admin key is needed, but where only this machine asks", async () => {
  const url = `${gateway.url}/metrics`;
  const { text: plain } = await keys.create({ project: "one" });
  const { text: admin } = await keys.create({ project: "one", admin: true });
  const status = async (key?: string): Promise<number> =>
    (await scrape(url, key === undefined ? {} : { authorization: `Bearer ${key}` })).status;
  expect([await status(), await status(plain), await status(admin)]).toEqual([401, 403, 200]);
  const open = new URL(gateway.metricsUrl ?? "");
  expect((await scrape(`${open.origin}/v1/vms`)).status).toBe(404);
  const wide = startGateway({ dir: daemon.dir, listen: "127.0.0.1:0", metricsListen: "0.0.0.0:0" });
  await expect(wide).rejects.toMatchObject({ code: "ERR_VALIDATION_FLAGS" });
});

test("the dashboard asks for figures and labels that there are, in words that Prometheus understands", async () => {
  const file = join(import.meta.dirname, "../../docs/grafana.json");
  const { panels } = JSON.parse(readFileSync(file, "utf8")) as {
    panels: { targets?: { expr: string; legendFormat?: string }[] }[];
  };
  const targets = panels.flatMap((panel) => panel.targets ?? []);
  const source = targets.map(({ expr }) => expr).join("\n");
  const wanted = new Set(source.match(/vmsan_[a-z_]+/g));
  const text = await (await scrape(gateway.metricsUrl ?? "")).text();
  const types = [...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)];
  const known = new Set(
    types.flatMap(([, name = "", type]) =>
      type === "histogram" ? [`${name}_bucket`, `${name}_count`, `${name}_sum`] : [name],
    ),
  );
  expect(wanted.size).toBeGreaterThan(15);
  expect([...wanted].filter((name) => !known.has(name))).toEqual([]);

  const documented = readFileSync(join(import.meta.dirname, "../../docs/metrics.md"), "utf8");
  const labels = new Set(
    [...documented.matchAll(/\{([a-z,]+)\}/g)].flatMap(([, list = ""]) => list.split(",")),
  );
  const grouped = [...source.matchAll(/by \(([a-z, ]+)\)|\{([a-z]+)=/g)].flatMap(([, by, one]) =>
    (by ?? one ?? "").split(", "),
  );
  const legends = targets.flatMap(({ legendFormat = "" }) =>
    [...legendFormat.matchAll(/\{\{(\w+)\}\}/g)].map(([, label = ""]) => label),
  );
  expect(grouped.length).toBeGreaterThan(5);
  for (const label of [...grouped, ...legends]) expect([...labels, "le"]).toContain(label);

  const rules = targets.map(({ expr }, at) => ({
    record: `r${at}`,
    expr: expr.replaceAll("$__rate_interval", "5m"),
  }));
  const place = join(daemon.dir, "rules.yml");
  writeFileSync(place, JSON.stringify({ groups: [{ name: "dashboard", rules }] }));
  expect(await promtool(["check", "rules", place], "")).toMatchObject({ status: 0 });
  writeFileSync(
    place,
    JSON.stringify({ groups: [{ name: "a", rules: [{ record: "r", expr: "sum(" }] }] }),
  );
  expect(await promtool(["check", "rules", place], "")).toMatchObject({ status: 1 });
});
