/**
 * Kubernetes' own conformance tests of pods, against a host of vmsan that boots every pod: its control plane, its tests built from
 * its modules, its images made of what is in them. What vmsan says that it does not offer is not run, and listed with the reason.
 *
 *   node test/cluster/conformance/run.ts [--focus REGEXP] [--together N] [--limit 3h] [--write]
 *
 * With the kernel of the VMSAN_DIR that is set; as root. Prints a table; with --write it becomes docs/conformance.md. The tests' own words are in
 * test-results/conformance.
 */
import { mkdir, rm, writeFile } from "node:fs/promises";
import { availableParallelism, loadavg } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { bench } from "../../../bench/lib/bench.ts";
import { Cluster } from "../cluster.ts";
import { Host } from "../host.ts";
import { conformancePrograms } from "../programs.ts";
import { conformanceImages } from "./images.ts";
import { reasonFor } from "./not-offered.ts";
import { Suite, nameOf } from "./specs.ts";
import { page } from "./table.ts";
import type { Outcome } from "./table.ts";

const { values } = parseArgs({
  options: {
    focus: { type: "string", default: String.raw`\[Conformance\]` },
    together: { type: "string", default: "1" },
    limit: { type: "string", default: "3h" },
    write: { type: "boolean", default: false },
  },
});
const ROOT = resolve(import.meta.dirname, "../../..");
const RESULTS = join(ROOT, "test-results/conformance");

await bench("conformance", async ({ dir, defer }) => {
  await rm(RESULTS, { recursive: true, force: true });
  await mkdir(RESULTS, { recursive: true });
  const { tests, ...made } = await conformancePrograms();
  const archives = await conformanceImages(dir, made);
  const cluster = await Cluster.start();
  defer(async () => await cluster.close());
  const own = { driver: "auto", archives, words: ["--untainted"] } as const;
  const host = await Host.start(cluster, "host-1", own);
  await cluster.ok(["wait", "--for=condition=Ready", "node", "--all", "--timeout=120s"]);
  const suite = new Suite(cluster, tests, RESULTS);
  const names = (await suite.list(values.focus)).map(nameOf);
  const wanted = names.filter((name) => reasonFor(name) === undefined);
  console.error(`${wanted.length} of ${names.length} tests are run`);
  const begun = performance.now();
  const alone = wanted.filter((name) => name.includes("[Serial]"));
  const others = wanted.filter((name) => !alone.includes(name));
  const ran = [
    ...(await suite.each("part", others, Number(values.together), values.limit)),
    ...(await suite.each("serial", alone, 1, values.limit)),
  ];
  await host.keepLogs(join(RESULTS, host.name));
  const outcomes = names.map((name): Outcome => {
    const why = reasonFor(name);
    const spec = ran.find((one) => nameOf(one) === name);
    if (why !== undefined) return { name, state: "not offered", why };
    if (spec === undefined) return { name, state: "not run", why: "the time was over" };
    const state = spec.State === "passed" ? "passed" : "failed";
    return { name, state, why: spec.Failure?.Message ?? "", seconds: spec.RunTime / 1e9 };
  });
  const text = page(outcomes, {
    minutes: (performance.now() - begun) / 60_000,
    together: Number(values.together),
    processors: availableParallelism(),
    load: loadavg()[0] ?? 0,
  });
  console.log(text);
  await writeFile(join(RESULTS, "conformance.md"), text);
  if (values.write) await writeFile(join(ROOT, "docs/conformance.md"), text);
});
