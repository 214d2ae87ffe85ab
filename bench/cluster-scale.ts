/**
 * bench/cluster-scale: many nodes on a real control plane, with daemons that have no VMs: how many pods a second come to run.
 *
 *   node bench/cluster-scale.ts [--nodes 100] [--pods 50] [--processes 4]      as root
 *
 * Prints JSON lines.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Cluster } from "../test/cluster/cluster.ts";
import { Network } from "../test/cluster/namespaces.ts";
import { bench, measured } from "./lib/bench.ts";
import { processCpu, report, residentMb } from "./lib/measure.ts";

const number = (value: string): { type: "string"; default: string } => ({
  type: "string",
  default: value,
});
const { values } = parseArgs({
  options: { nodes: number("100"), pods: number("50"), processes: number("4") },
});
const nodes = Number(values.nodes);
const pods = nodes * Number(values.pods);
const each = Math.ceil(nodes / Number(values.processes));

/** Requests that have changed something, by what. */
async function writesOf(cluster: Cluster): Promise<Record<string, number>> {
  const text = await cluster.ok(["get", "--raw", "/metrics"]);
  const writes: Record<string, number> = {};
  for (const line of text.split("\n")) {
    const [, labels = "", count] = /^apiserver_request_total\{(.*)\} (\S+)$/.exec(line) ?? [];
    const of = (label: string): string =>
      new RegExp(`\\b${label}="([^"]*)"`).exec(labels)?.[1] ?? "";
    if (!["POST", "PATCH", "PUT", "DELETE"].includes(of("verb"))) continue;
    if (!["pods", "events"].includes(of("resource"))) continue;
    const what = [of("verb"), of("resource"), of("subresource")].filter(Boolean).join(" ");
    writes[what] = (writes[what] ?? 0) + Number(count);
  }
  return writes;
}

/** How much was added, for each pod. */
function aPod(
  before: Readonly<Record<string, number>>,
  after: Readonly<Record<string, number>>,
): Record<string, number> {
  return Object.fromEntries(
    Object.entries(after).map(([name, value]) => [name, (value - (before[name] ?? 0)) / pods]),
  );
}

await bench("cluster-scale", async ({ dir, defer }) => {
  const limits = ["--kube-api-qps=2000", "--kube-api-burst=2000"];
  const cluster = await Cluster.start({ scheduler: limits });
  defer(async () => await cluster.close());
  for (let index = 0; index < nodes; index += 1) {
    const name = `node-${index}`;
    cluster.kubeconfig(name, { subject: `/O=system:nodes/CN=system:node:${name}` });
  }
  const lib = join(import.meta.dirname, "lib");
  const [command = "", ...inside] = Network.inside(cluster.network.hub);
  const farms: number[] = [];
  const began = performance.now();
  for (let first = 0; first < nodes; first += each) {
    const place = join(dir, `farm-${first}`);
    mkdirSync(place);
    const size = Math.min(each, nodes - first);
    const words = [cluster.dir, place, String(first), String(size), cluster.network.hubAddress];
    const child = spawn(
      command,
      [...inside, process.execPath, join(lib, "node-farm.ts"), ...words],
      { stdio: ["ignore", "pipe", "inherit"] },
    );
    measured(child);
    await once(child.stdout, "data");
    farms.push(child.pid ?? 0);
  }
  report({ name: `${nodes} nodes registered`, ms: performance.now() - began });
  const parts = (): Record<string, number> => ({
    nodes: farms.reduce((sum, pid) => sum + processCpu(pid), 0),
    apiServer: processCpu(cluster.apiServer.pid ?? 0),
    etcd: processCpu(cluster.etcd.pid ?? 0),
    scheduler: processCpu(cluster.scheduler.pid ?? 0),
    controllers: processCpu(cluster.controllers.pid ?? 0),
  });
  const before = { cpu: parts(), writes: await writesOf(cluster) };
  let whenRun = before.cpu;
  const flood = await cluster.inHub(
    [process.execPath, join(lib, "pod-flood.ts"), cluster.admin, String(pods)],
    {
      timeoutMs: 3_600_000,
      onProcess: ({ stdout, stderr }) => {
        stderr?.pipe(process.stderr);
        stdout?.once("data", () => (whenRun = parts()));
      },
    },
  );
  if (flood.code !== 0) throw new Error(flood.stderr);
  const { made, ran, gone } = JSON.parse(flood.stdout.toString().split("\n")[1] ?? "") as Record<
    string,
    number
  >;
  const aSecond = (ms = 0): number => Math.round((pods * 1000) / ms);
  report({ name: `${pods} pods made`, ms: made, perSecond: aSecond(made) });
  report({ name: `${pods} pods run`, ms: ran, perSecond: aSecond(ran) });
  report({ name: `${pods} pods removed`, ms: gone, perSecond: aSecond(gone) });
  const writes = aPod(before.writes, await writesOf(cluster));
  report({ name: "writes of the API, a pod, by all", ...writes });
  report({ name: "ms of CPU, a pod, until they run", ...aPod(before.cpu, whenRun) });
  report({ name: "ms of CPU, a pod, for their removal", ...aPod(whenRun, parts()) });
  const farm = Math.max(...farms.map((pid) => residentMb(pid, "VmHWM")));
  report({ name: `MB at most, of a process with ${each} nodes and their mock daemons`, mb: farm });
});
