/**
 * bench/start: the command line's own start-up against `node -e 0`, process by process, by turns.
 *
 *     node bench/start.ts [--rounds N]
 *
 * Prints a JSON line a command: the median of the wall time, the mean of user and system time (the
 * daemon's beside it), and the ratio of wall times to bare Node. `list` talks to a daemon that runs already.
 */
import { parseArgs } from "node:util";
import { bench } from "./lib/bench.ts";
import { daemonOf, ownHome, vmsan } from "./lib/home.ts";
import { byTurns, costOf, report } from "./lib/measure.ts";

const { values } = parseArgs({ options: { rounds: { type: "string", default: "15" } } });
const rounds = Number(values.rounds);

await bench("start", async (own) => {
  const env = ownHome(own);
  const daemon = daemonOf(env);
  const costs = await byTurns(rounds, {
    "node -e 0": () => costOf([process.execPath, "-e", "0"]),
    "vmsan --version": () => costOf([vmsan, "--version"], { env }),
    "vmsan --help": () => costOf([vmsan, "--help"], { env }),
    "vmsan list": () => costOf([vmsan, "list"], { env, daemon }),
  });
  const base = costs["node -e 0"].wallMs;
  for (const [command, cost] of Object.entries(costs)) {
    report({ bench: "start", command, rounds, ...cost, ratio: cost.wallMs / base });
  }
});
