/**
 * Runs the table of attempts in a world of its own; started by launch.ts. Arguments: JSON with
 * the paths of nettool and helper, a state directory, and mutations (pieces of ruleset text to
 * replace), each of which must make the table fail. Prints one JSON object a line.
 */
import { execFileSync } from "node:child_process";
import { Realm } from "../../src/network/realm.ts";
import { planFor } from "../../src/network/address.ts";
import { attempts, lookups, names, order, policies, type Attempt, type Site } from "./table.ts";
import { World, name, zone, type Guest } from "./world.ts";

interface Job {
  nettool: string;
  helper: string;
  dir: string;
  /** Columns to run, e.g. `ADN`; default all. */
  columns?: string;
  mutations?: Mutation[];
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
for (const [host, addresses] of names) name(host, addresses);
zone.set("alias.test", [{ type: "CNAME", name: "alias.test", ttl: 60, data: "real.other" }]);
for (const host of ["a.test", "evil.test"]) {
  zone
    .get(host)
    ?.push(
      { type: "TXT", name: host, ttl: 60, data: "text" },
      { type: "UNKNOWN_65" as "NULL", name: host, ttl: 60, data: Buffer.from("0001000000", "hex") },
    );
}

const realm = new SpoilableRealm();
const world = new World(job, realm);
await world.start();
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

/** What the tap's side of the VM believes about its neighbours and routes. */
function beliefs(): string {
  const ask = (...args: string[]): string =>
    execFileSync("ip", ["-n", "vmsan-vm-guest", ...args], { encoding: "utf8" });
  return ask("neigh", "show") + ask("-6", "route", "show") + ask("route", "show");
}

/** Whether an attempt succeeded. */
async function succeeds(
  vm: Guest,
  attempt: Attempt,
  timeoutMs = 1500,
): Promise<{ open: boolean; got: string }> {
  if (attempt.frames !== undefined) {
    for (const frame of attempt.frames) await vm.probe({ kind: "frame", frame, dev: "eth0" });
    return { open: false, got: "sent" };
  }
  const got = await vm.probe({ timeoutMs, ...attempt.fields });
  const want = attempt.want ?? /server=|server reached|pong|rcode=0/;
  return { open: got.startsWith("open") && want.test(got), got };
}

/** Run one policy's column; the attempts that got through though they should not. */
async function column(letter: string, report: boolean): Promise<string[]> {
  await world.manager.update("vm-guest", policies[letter] ?? never());
  for (const [host, type] of lookups) {
    await guest.probe({ kind: "dns", addr: `${site.gateway4}:53`, name: host, type });
  }
  world.seen.clear();
  const before = beliefs();
  const framed = table.filter((attempt) => attempt.frames !== undefined);
  for (const attempt of framed) await succeeds(guest, attempt);
  const results = new Map(
    await Promise.all(
      table
        .filter((attempt) => attempt.frames === undefined)
        .map(
          async (attempt) =>
            [attempt, await succeeds(guest, attempt, report ? 1500 : 400)] as const,
        ),
    ),
  );
  // The other attempts took longer than any frame on its way; what got out has been seen.
  for (const attempt of framed) {
    const open = [...world.seen].some((mark) => mark === attempt.mark);
    results.set(attempt, { open, got: open ? "seen outside" : "not seen" });
  }
  const leaks: string[] = [];
  for (const [attempt, { open, got }] of results) {
    const expected = attempt.expect[order.indexOf(letter)] === "o";
    if (open && !expected) leaks.push(attempt.name);
    if (report)
      print({ policy: letter, name: attempt.name, expected, open, got: got.slice(0, 200) });
  }
  const after = beliefs();
  if (after !== before) leaks.push("beliefs of the gateway");
  if (report) {
    print({
      policy: letter,
      name: "beliefs of the gateway",
      expected: true,
      open: after === before,
      got: after === before ? "" : after,
    });
  }
  return leaks;
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
