/**
 * Cost of a VM's network on the create path, and how exact bandwidth limits are.
 *
 *   sudo node bench/network.ts
 *
 * Prints one JSON object. Everything happens in namespaces of its own (test/network/). The naive
 * sequence makes the same network with one program launch for each step.
 */
import { loadavg } from "node:os";
import { bench, measured } from "./lib/bench.ts";
import { buildBench, inWorld, whyNot } from "../test/network/launch.ts";

await bench("network", async (own) => {
  const reason = whyNot();
  if (reason !== undefined) return console.log(JSON.stringify({ skipped: reason }));
  const tools = buildBench();
  own.defer(tools.remove);
  const load = loadavg()[0];
  const lines = await inWorld(tools, "measure.ts", { rounds: 30 }, {}, measured);
  return console.log(JSON.stringify({ load, ...Object.assign({}, ...lines) }, null, 2));
});
