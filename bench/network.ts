/**
 * Cost of a VM's network on the create path, and how exact bandwidth limits are.
 *
 *   sudo node bench/network.ts
 *
 * Prints one JSON object. Everything happens in namespaces of its own (test/network/). The naive
 * sequence makes the same network with one program launch for each step.
 */
import { loadavg } from "node:os";
import { buildBench, inWorld, whyNot } from "../test/network/launch.ts";

const reason = whyNot();
if (reason === undefined) {
  const bench = buildBench();
  try {
    const load = loadavg()[0];
    const lines = await inWorld(bench, "measure.ts", { rounds: 30 });
    process.stdout.write(`${JSON.stringify({ load, ...Object.assign({}, ...lines) }, null, 2)}\n`);
  } finally {
    bench.remove();
  }
} else {
  process.stdout.write(`${JSON.stringify({ skipped: reason })}\n`);
}
