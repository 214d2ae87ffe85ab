/**
 * Kubernetes' own conformance tests of pods, against a host of vmsan that boots every pod: its control plane, its tests built from
 * its modules, its images made of what is in them. What vmsan says that it does not offer is not run, and listed with the reason.
 *
 *   node test/cluster/conformance/run.ts [--focus REGEXP] [--together N] [--limit 3h] [--failed] [--again] [--write]
 *
 * With the kernel of the VMSAN_DIR that is set; as root. What ended within the limit is kept in test-results/conformance, with the tests' own words, and
 * not run again by the next run, which goes on with the rest, with --failed also with what has failed; --again begins anew. Prints a table of all; with --write it becomes docs/conformance.md.
 */
import { mkdir, rm, writeFile } from "node:fs/promises";
import { loadavg } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { bench } from "../../../bench/lib/bench.ts";
import { Cluster } from "../cluster.ts";
import { Host } from "../host.ts";
import { conformancePrograms } from "../programs.ts";
import { conformanceImages } from "./images.ts";
import { reasonFor } from "./not-offered.ts";
import { Results } from "./results.ts";
import { Suite, nameOf } from "./specs.ts";
import type { Spec } from "./specs.ts";
import { page } from "./table.ts";

const { values } = parseArgs({
  options: {
    focus: { type: "string", default: String.raw`\[Conformance\]` },
    together: { type: "string", default: "1" },
    limit: { type: "string", default: "3h" },
    failed: { type: "boolean", default: false },
    again: { type: "boolean", default: false },
    write: { type: "boolean", default: false },
  },
});
const ROOT = resolve(import.meta.dirname, "../../..");
const RESULTS = join(ROOT, "test-results/conformance");

await bench("conformance", async ({ dir, defer }) => {
  if (values.again) await rm(RESULTS, { recursive: true, force: true });
  await mkdir(RESULTS, { recursive: true });
  const { tests, ...made } = await conformancePrograms();
  const archives = await conformanceImages(dir, made);
  const cluster = await Cluster.start();
  defer(async () => await cluster.close());
  const own = { driver: "auto", archives, words: ["--untainted"] } as const;
  const host = await Host.start(cluster, "host-1", own);
  await cluster.ok(["wait", "--for=condition=Ready", "node", "--all", "--timeout=120s"]);
  const results = await Results.load(RESULTS);
  const suite = new Suite(cluster, tests, join(RESULTS, `run-${results.runs + 1}`));
  const names = (await suite.list(values.focus)).map(nameOf);
  const wanted = names.filter((name) => reasonFor(name) === undefined);
  const left = wanted.filter((name) => {
    const ended = results.get(name);
    return ended === undefined || (values.failed && !ended.passed);
  });
  console.error(`${left.length} of ${names.length} tests are run`);
  /** What has ended is kept at once: a run may be ended at any time. */
  const phase = async (what: string, tests: string[], at: number): Promise<Spec[]> => {
    const begun = performance.now();
    const ran = await suite.each(what, tests, at, values.limit);
    const minutes = (performance.now() - begun) / 60_000;
    await results.add(ran, { minutes, together: at, load: loadavg()[0] ?? 0 });
    return ran;
  };
  const alone = left.filter((name) => name.includes("[Serial]"));
  const others = left.filter((name) => !alone.includes(name));
  const together = Number(values.together);
  // Those that must run alone come once the others are over, in a run of their own where the limit cuts this one short.
  const ran = await phase("part", others, together);
  if (ran.length === others.length && alone.length > 0) await phase("serial", alone, 1);
  await host.keepLogs(join(RESULTS, `run-${results.runs}`, host.name));
  const text = page(names, results);
  console.log(text);
  await writeFile(join(RESULTS, "conformance.md"), text);
  if (values.write) await writeFile(join(ROOT, "docs/conformance.md"), text);
});
