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
import { processCpu, report } from "./lib/measure.ts";

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
  const cpu = (): number => farms.reduce((sum, pid) => sum + processCpu(pid), 0);
  const before = cpu();
  const flood = await cluster.inHub(
    [process.execPath, join(lib, "pod-flood.ts"), cluster.admin, String(pods)],
    { timeoutMs: 1_800_000 },
  );
  if (flood.code !== 0) throw new Error(flood.stderr);
  const { made, ran, gone } = JSON.parse(flood.stdout.toString()) as Record<string, number>;
  const aSecond = (ms = 0): number => Math.round((pods * 1000) / ms);
  report({ name: `${pods} pods made`, ms: made, perSecond: aSecond(made) });
  report({ name: `${pods} pods run`, ms: ran, perSecond: aSecond(ran) });
  report({ name: `${pods} pods removed`, ms: gone, perSecond: aSecond(gone) });
  report({ name: "CPU of nodes and their mock daemons, a pod", ms: (cpu() - before) / pods });
});
