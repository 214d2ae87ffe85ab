/**
 * Runs the table of attempts in a world of its own; started by launch.ts. Arguments: JSON with
 * the paths of nettool and helper, a state directory, and mutations (pieces of ruleset text to
 * replace), each of which must make the table fail. Prints one JSON object a line.
 */
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { Realm } from "../../src/network/host/realm.ts";
import { RootlessRealm } from "../../src/network/host/rootless.ts";
import { planFor } from "../../src/network/kernel/address.ts";
import { attempts, order, policies, type Site } from "./table.ts";
import { fillZone, runColumn } from "./column.ts";
import { World } from "./world.ts";

interface Job {
  nettool: string;
  helper: string;
  dir: string;
  /** Columns to run, e.g. `ADN`; default all. */
  columns?: string;
  mutations?: Mutation[];
  /** Servers agree to every upgrade, asked for or not. */
  switching?: boolean;
  /** In a user namespace, with pasta as the way out. */
  rootless?: boolean;
  /** The VM and another one are in a private network, and one that nobody else is in. */
  networks?: boolean;
}

/** A rule spoilt on purpose. */
export interface Mutation {
  from: string;
  to: string;
  /** Columns to look at. */
  columns: string;
  /** Also take the host's own table away, from here on. */
  withoutHostTable?: boolean;
  /** Nothing must get through: what was spoilt is one layer of two. */
  holds?: boolean;
}

/** A realm whose rulesets can be spoilt on purpose. */
class SpoilableRealm extends Realm {
  spoil: { from: string; to: string } | undefined;
  hits = 0;
  override async nftIn(netns: string, transaction: string, signal?: AbortSignal): Promise<void> {
    let text = transaction;
    if (this.spoil !== undefined && text.includes(this.spoil.from)) {
      text = text.replaceAll(this.spoil.from, this.spoil.to);
      this.hits += 1;
    }
    await super.nftIn(netns, text, signal);
  }
  /** Whether the spoilt text was in a ruleset since last asked. */
  takeHits(): number {
    const { hits } = this;
    this.hits = 0;
    return hits;
  }
}

const print = (line: unknown): void => {
  process.stdout.write(`${JSON.stringify(line)}\n`);
};

const job = JSON.parse(process.argv[2] ?? "{}") as Job;
fillZone();

const realm = new SpoilableRealm();
const rootless = new RootlessRealm(join(job.dir, "rootless"), (message) => print({ message }));
const world = new World(job, job.rootless === true ? rootless : realm);
await world.start();
if (job.rootless === true) {
  // As on Debian hosts: pasta pings by sockets that need no privilege.
  writeFileSync("/proc/sys/net/ipv4/ping_group_range", "0 2147483647");
}
const serveOther = ["--tcp", "8080", "--udp", "5000"];
const port = { protocol: "tcp", hostAddress: "198.51.100.2", guestPort: 8080 } as const;
const other = await world.guest(
  "vm-other",
  policies["A"] ?? never(),
  [{ ...port, hostPort: 8090 }],
  serveOther,
);
const guest = await world.guest(
  "vm-guest",
  policies["A"] ?? never(),
  [{ ...port, hostPort: 8091 }],
  serveOther,
);

if (job.networks === true) {
  const app = { network: "app", subnet: "198.18.0.0/24" };
  const own = { network: "own", subnet: "10.30.0.0/16", address: "10.30.0.2" };
  const peer = { ...app, address: "198.18.0.3" };
  await world.guest("vm-peer", policies["A"] ?? never(), [], serveOther, [peer]);
  const places = [{ ...app, address: "198.18.0.2" }, own];
  await world.manager.place("vm-guest", places);
  for (const place of places) guest.join(place);
  const got = await guest.probe({ kind: "tcp", addr: "198.18.0.3:8080", timeoutMs: 15_000 });
  print({ member: got });
}

function never(): never {
  throw new Error("cannot happen");
}

const plain = (text: string | undefined): string => (text ?? "").split("/")[0] ?? "";
const site: Site = {
  gateway4: plain(guest.network.guest.gateway4),
  gateway6: plain(guest.network.guest.gateway6),
  guest4: plain(guest.network.guest.ipv4),
  guest6: plain(guest.network.guest.ipv6),
  guestMac: guest.network.guest.mac,
  gatewayMac: planFor("vm-guest", 1, "fd00:0000:0000").gatewayMac,
  otherGuest4: plain(other.network.guest.ipv4),
  otherGateway4: plain(other.network.guest.gateway4),
};
const table = attempts(site);

const { prefix } = world.realm;
// Raw packets end at pasta, which speaks for its guests by sockets of its own.
if (job.rootless === true) await world.watch(prefix);
const context = {
  vm: guest,
  seen: world.seen,
  netns: "vmsan-vm-guest",
  prefix,
  site,
  table,
  print,
};

/** Run one policy's column; the attempts that got through though they should not. */
async function column(letter: string, report: boolean): Promise<string[]> {
  await world.manager.update("vm-guest", policies[letter] ?? never());
  return await runColumn(context, letter, report);
}

for (const letter of job.columns ?? order) await column(letter, true);
for (const mutation of job.mutations ?? []) {
  const { from, to, columns } = mutation;
  if (mutation.withoutHostTable === true) {
    execFileSync("nft", ["-f", "-"], { input: "table inet vmsan\ndelete table inet vmsan\n" });
  }
  realm.spoil = { from, to };
  realm.takeHits();
  const leaks: string[] = [];
  for (const letter of columns) leaks.push(...(await column(letter, false)));
  const { holds } = mutation;
  print({ mutation: from, applied: realm.takeHits() > 0, leaks, holds: holds === true });
}
realm.spoil = undefined;
await world.stop();
print({ done: true });
process.exit(0);
