/**
 * Kubernetes' own conformance tests of pods, against a host of vmsan that boots every pod: its control plane, its tests built from
 * its modules, its images made of what is in them. What vmsan says that it does not offer is not run, and listed with the reason.
 *
 *   node test/cluster/conformance/run.ts [--focus REGEXP]      with the kernel of the VMSAN_DIR that is set; as root
 *
 * Prints a table; the tests' own words are in test-results/conformance.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createWriteStream } from "node:fs";
import { mkdir, readFile, rm } from "node:fs/promises";
import { loadavg } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { bench, measured } from "../../../bench/lib/bench.ts";
import { Cluster } from "../cluster.ts";
import { Host } from "../host.ts";
import { Network } from "../namespaces.ts";
import { conformancePrograms } from "../programs.ts";
import { conformanceImages } from "./images.ts";
import { NOT_OFFERED } from "./not-offered.ts";

const { values } = parseArgs({
  options: { focus: { type: "string", default: String.raw`\[Conformance\]` } },
});
const RESULTS = resolve(import.meta.dirname, "../../../test-results/conformance");

/** One test in ginkgo's report. */
interface Spec {
  ContainerHierarchyTexts: string[] | null;
  LeafNodeText: string;
  LeafNodeType: string;
  State: string;
  RunTime: number;
  Failure?: { Message: string };
}

/** A test's name without its labels in brackets. */
const nameOf = ({ ContainerHierarchyTexts, LeafNodeText }: Spec): string =>
  [...(ContainerHierarchyTexts ?? []), LeafNodeText].join(" ");

/** Run the tests. @returns what ginkgo says of each */
async function run(cluster: Cluster, tests: string): Promise<Spec[]> {
  const report = join(RESULTS, "report.json");
  const log = createWriteStream(join(RESULTS, "log.txt"));
  const skip = NOT_OFFERED.map(({ pattern }) => pattern).join("|");
  const [command = "", ...before] = Network.inside(cluster.network.hub);
  const words = [
    tests,
    `-kubeconfig=${cluster.admin}`,
    `-kubectl-path=${cluster.programs.kubectl.newest}`,
    "-provider=skeleton",
    "-num-nodes=1",
    `-ginkgo.focus=${values.focus}`,
    `-ginkgo.skip=${skip}`,
    `-ginkgo.json-report=${report}`,
    "-ginkgo.no-color",
    "-ginkgo.timeout=3h",
    "-delete-namespace=true",
    "-dump-logs-on-failure=false",
  ];
  const child = spawn(command, [...before, ...words], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, HOME: cluster.dir },
  });
  measured(child);
  child.stdout.pipe(log, { end: false });
  child.stderr.pipe(log, { end: false });
  await once(child, "close");
  log.end();
  type Report = { SpecReports: Spec[] | null };
  const [suite] = JSON.parse(await readFile(report, "utf8")) as Report[];
  return (suite?.SpecReports ?? []).filter(({ LeafNodeType }) => LeafNodeType === "It");
}

/** One row a test that was to be run, and how many there are of each kind. */
function tell(specs: readonly Spec[]): void {
  const focus = new RegExp(values.focus);
  const wanted = specs.filter((spec) => focus.test(nameOf(spec)));
  const counts: Record<string, number> = {};
  for (const spec of wanted) {
    const name = nameOf(spec);
    const why = NOT_OFFERED.find(({ pattern }) => new RegExp(pattern).test(name))?.why;
    const outcome = spec.State === "skipped" && why !== undefined ? "not offered" : spec.State;
    counts[outcome] = (counts[outcome] ?? 0) + 1;
    const said = (spec.Failure?.Message ?? why ?? "").replaceAll(/\s+/g, " ").slice(0, 300);
    const seconds = (spec.RunTime / 1e9).toFixed(0);
    console.log(`| ${outcome} | ${name} | ${outcome === "passed" ? `${seconds} s` : said} |`);
  }
  console.log(JSON.stringify({ counts, load: loadavg()[0] }));
}

await bench("conformance", async ({ dir, defer }) => {
  await rm(RESULTS, { recursive: true, force: true });
  await mkdir(RESULTS, { recursive: true });
  const { tests, agnhost } = await conformancePrograms();
  const archives = await conformanceImages(dir, agnhost);
  const cluster = await Cluster.start();
  defer(async () => await cluster.close());
  const own = { driver: "auto", archives, words: ["--untainted"] } as const;
  const host = await Host.start(cluster, "host-1", own);
  await cluster.ok(["wait", "--for=condition=Ready", "node", "--all", "--timeout=120s"]);
  const specs = await run(cluster, tests);
  await host.keepLogs(join(RESULTS, host.name));
  tell(specs);
});
