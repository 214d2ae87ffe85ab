/** Measurements for bench/network.ts, in namespaces of their own. Prints JSON lines. */
import { spawnSync } from "node:child_process";
import { planFor } from "../../src/network/kernel/address.ts";
import { guestLinks, guestSysctls, hostLinks } from "../../src/network/kernel/links.ts";
import { parsePolicy } from "../../src/network/policy/parse.ts";
import { Realm } from "../../src/network/host/realm.ts";
import { ruleset } from "../../src/network/kernel/rules.ts";
import { World } from "./world.ts";

const job = JSON.parse(process.argv[2] ?? "{}") as {
  nettool: string;
  helper: string;
  dir: string;
  rounds: number;
};
const print = (line: unknown): void => {
  process.stdout.write(`${JSON.stringify(line)}\n`);
};
const signal = new AbortController().signal;
const realm = new Realm();
const world = new World(job, realm);
await world.start();

/** Median and the slowest of ten, in milliseconds. */
function summary(times: number[]): { median: number; p90: number } {
  const sorted = times.toSorted((a, b) => a - b);
  const at = (share: number): number =>
    Math.round((sorted[Math.floor(sorted.length * share)] ?? 0) * 10) / 10;
  return { median: at(0.5), p90: at(0.9) };
}

/** Time and launches of creating networks with a policy. */
async function create(label: string, policy: ReturnType<typeof parsePolicy>): Promise<void> {
  const times: number[] = [];
  const removals: number[] = [];
  let launches = 0;
  for (let round = 0; round <= job.rounds; round += 1) {
    const id = `vm-${label}-${round}`;
    const before = realm.launches;
    let from = performance.now();
    await world.manager.attach(id, policy, [], signal);
    // The first one also starts the helper and makes the host's table.
    if (round > 0) times.push(performance.now() - from);
    launches = realm.launches - before;
    from = performance.now();
    await world.manager.detach(id);
    removals.push(performance.now() - from);
  }
  print({ [label]: { createMs: summary(times), removeMs: summary(removals), launches } });
}

/** The same network, each step a program of its own. */
function naive(): { ms: number; launches: number } {
  const plan = planFor("vm-naive", 9999, "fd00:1:2");
  const policy = parsePolicy({ allowedDomains: "a.test" });
  const text = ruleset({
    policy,
    plan,
    generation: 1,
    ipv6: true,
    hostAddresses: [],
    names: [],
    heldNames: [],
    links: [],
  });
  let launches = 0;
  const run = (argv: string[], input = ""): void => {
    const [file = "", ...args] = argv;
    launches += 1;
    spawnSync(file, args, { input });
  };
  const from = performance.now();
  run(["ip", "netns", "add", plan.netns]);
  for (const line of hostLinks(plan, true).trim().split("\n")) run(["ip", ...line.split(" ")]);
  for (const line of guestLinks(plan, true).split("\n"))
    run(["ip", "-n", plan.netns, ...line.split(" ")]);
  for (const [key, value] of Object.entries(guestSysctls(true))) {
    run([
      "ip",
      "netns",
      "exec",
      plan.netns,
      "sysctl",
      "-qw",
      `net.${key.replaceAll("/", ".")}=${value}`,
    ]);
  }
  // One launch a chain or set is kind: the usual way is one a rule.
  for (const _ of text.matchAll(/^ {2}(chain|set) /gm))
    run(["ip", "netns", "exec", plan.netns, "nft", "list", "tables"]);
  const ms = Math.round(performance.now() - from);
  run(["ip", "netns", "del", plan.netns]);
  return { ms, launches: launches - 1 };
}

await create("custom", parsePolicy({ allowedDomains: "a.test", allowedCidrs: "203.0.113.0/24" }));
await create("limited", parsePolicy({ bandwidth: "50m" }));
print({ naive: naive() });

// Ten megabits and fifty, both ways; payload of TCP, so about 95 % of what is on the wire.
for (const mbit of [10, 50]) {
  const guest = await world.guest(`vm-rate${mbit}`, parsePolicy({ bandwidth: `${mbit}m` }));
  const bytes = mbit * 500_000;
  const measure = async (kind: string, port: number): Promise<number> => {
    const got = await guest.probe({ kind, addr: `203.0.113.10:${port}`, bytes, timeoutMs: 30_000 });
    return Number(/rate=([\d.]+)/.exec(got)?.[1]);
  };
  const up = await measure("upload", 9100);
  const down = await measure("download", 9101);
  print({ [`limit${mbit}`]: { upMbit: up, downMbit: down } });
}
const free = await world.guest("vm-free", parsePolicy({}));
const got = await free.probe({ kind: "download", addr: "203.0.113.10:9101", bytes: 50_000_000 });
print({ unlimited: got });
await world.stop();
process.exit(0);
