/**
 * Private networks in a world of its own; started by launch.ts. Arguments: JSON with the paths of
 * nettool and helper and a state directory, and `rootless`. Prints one JSON object an attempt.
 */
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { NetworkPolicy } from "../../src/model/policy.ts";
import { Realm } from "../../src/network/host/realm.ts";
import { RootlessRealm } from "../../src/network/host/rootless.ts";
import { planFor } from "../../src/network/kernel/address.ts";
import type { Wanted } from "../../src/network/private/nets.ts";
import { fillZone } from "./column.ts";
import { arp, checksum, ethernet, ipv4, udp } from "./packets.ts";
import { policies } from "./table.ts";
import { World, type Guest } from "./world.ts";

const job = JSON.parse(process.argv[2] ?? "{}") as {
  nettool: string;
  helper: string;
  dir: string;
  rootless?: boolean;
  /** Pieces of VMs' rules to replace; the frames alone are tried then. */
  spoil?: { from: string; to: string }[];
  /** The networks' namespaces take packets from any member's link. */
  anySource?: boolean;
};
const print = (line: unknown): void => {
  process.stdout.write(`${JSON.stringify(line)}\n`);
};

/** A realm whose rules can be spoilt on purpose. */
class SpoilableRealm extends Realm {
  override async nftIn(netns: string, transaction: string, signal?: AbortSignal): Promise<void> {
    let text = transaction;
    for (const { from, to } of job.spoil ?? []) text = text.replaceAll(from, to);
    await super.nftIn(netns, text, signal);
  }
}

fillZone();
const realm =
  job.rootless === true
    ? new RootlessRealm(join(job.dir, "rootless"), (message) => print({ message }))
    : new SpoilableRealm();
const world = new World(job, realm);
await world.start();
writeFileSync("/proc/sys/net/ipv4/ping_group_range", "0 2147483647");

/** A place in a network. */
const at = (network: string, subnet: string, address: string): Wanted => ({
  network,
  subnet,
  address,
});
const app = (last: number): Wanted => at("app", "198.18.0.0/24", `198.18.0.${last}`);
const two = (last: number): Wanted => at("two", "10.20.0.0/16", `10.20.0.${last}`);

/** Who is where, and under which names, as the records of VMs say. */
const places = new Map<string, { names: string[]; networks: Wanted[] }>();
world.peers = (vmId) => {
  const own = places.get(vmId)?.networks.map(({ network }) => network) ?? [];
  return [...places.values()].flatMap(({ names, networks }) =>
    networks
      .filter(({ network }) => own.includes(network))
      .map(({ network, address }) => ({ network, address, names })),
  );
};

const serve = ["--tcp", "53,8080", "--http", "80", "--udp", "53,5000"];
async function member(
  name: string,
  policy: NetworkPolicy | undefined,
  networks: Wanted[],
  aliases: string[] = [],
): Promise<Guest> {
  if (policy === undefined) throw new Error("no such policy");
  places.set(`vm-${name}`, { names: [name, ...aliases], networks });
  const port = { protocol: "tcp", hostAddress: "198.51.100.2", guestPort: 8080 } as const;
  const hostPort = 8100 + places.size;
  return await world.guest(`vm-${name}`, policy, [{ ...port, hostPort }], serve, networks);
}

const a = await member("a", policies["A"], [app(2)]);
const b = await member("b", policies["D"], [app(3)], ["db"]);
// With names: web traffic of its own passes the proxy.
const c = await member("c", policies["N"], [app(4), two(2)], ["db"]);
const d = await member("d", policies["A"], [at("other", "198.18.1.0/24", "198.18.1.2")]);
const e = await member("e", policies["B"], []);
const f = await member("f", policies["A"], [two(3)]);
const plain = ({ network }: Guest): string => network.guest.ipv4?.split("/")[0] ?? "";
const plainA = plain(a);
const plainB = plain(b);

/** Attempts that nobody has waited for yet. */
const under: Promise<void>[] = [];

/** One attempt. @param want what an answer must look like; undefined: nothing may come back */
function attempt(
  name: string,
  from: { probe(fields: Record<string, unknown>): Promise<string> },
  fields: Record<string, unknown>,
  want?: RegExp,
): Promise<void> {
  const trying = tryOnce(name, from, fields, want);
  under.push(trying);
  return trying;
}

async function tryOnce(
  name: string,
  from: { probe(fields: Record<string, unknown>): Promise<string> },
  fields: Record<string, unknown>,
  want?: RegExp,
): Promise<void> {
  // What is refused may stay silent; what is open has all the time that a loaded machine takes.
  const got = await from.probe({ timeoutMs: want === undefined ? 700 : 15_000, ...fields });
  const good =
    want === undefined ? !got.startsWith("open") : got.startsWith("open") && want.test(got);
  print({ name, good, got: got.slice(0, 200) });
}
const tcp = (addr: string): Record<string, unknown> => ({ kind: "tcp", addr });
const ping = (addr: string): Record<string, unknown> => ({ kind: "icmp", addr });
const ask = (guest: Guest, name: string, type = 1): Record<string, unknown> => ({
  kind: "dns",
  addr: `${guest.network.guest.gateway4}:53`,
  name,
  type,
});

/** Members reach each other, whatever their policies, and see each other's private addresses. */
async function inside(stage: string): Promise<void> {
  const peer = (address: string): RegExp => new RegExp(`peer=${address.replaceAll(".", "\\.")}:`);
  void attempt(`${stage}: a to b`, a, tcp("198.18.0.3:8080"), peer("198.18.0.2"));
  void attempt(`${stage}: b to a`, b, tcp("198.18.0.2:8080"), peer("198.18.0.3"));
  void attempt(
    `${stage}: c to a, web`,
    c,
    { ...tcp("198.18.0.2:80"), send: "GET / HTTP/1.1\r\nHost: x\r\n\r\n" },
    /host=x/,
  );
  void attempt(`${stage}: c to a`, c, tcp("198.18.0.2:8080"), peer("198.18.0.4"));
  void attempt(`${stage}: c to f`, c, tcp("10.20.0.3:8080"), peer("10.20.0.2"));
  void attempt(`${stage}: f to c`, f, tcp("10.20.0.2:8080"), peer("10.20.0.3"));
  void attempt(`${stage}: b pings c`, b, ping("198.18.0.4"), /pong/);
  void attempt(
    `${stage}: datagrams`,
    a,
    { kind: "udp", addr: "198.18.0.3:5000", send: "x" },
    /server=/,
  );
  void attempt(
    `${stage}: a member's own name server`,
    a,
    { kind: "udp", addr: "198.18.0.3:53", send: "x" },
    /server=/,
  );
  void attempt(
    `${stage}: from its plain address`,
    a,
    { ...tcp("198.18.0.3:8080"), source: plainA },
    peer("198.18.0.2"),
  );
  void attempt(`${stage}: name`, a, ask(a, "b"), /rcode=0 198\.18\.0\.3$/);
  void attempt(
    `${stage}: name, any case, under deny-all`,
    b,
    ask(b, "A"),
    /rcode=0 198\.18\.0\.2$/,
  );
  void attempt(`${stage}: name with network`, b, ask(b, "c.app"), /rcode=0 198\.18\.0\.4$/);
  void attempt(`${stage}: name in another network`, f, ask(f, "c"), /rcode=0 10\.20\.0\.2$/);
  void attempt(`${stage}: alias of two`, a, ask(a, "db"), /rcode=0 198\.18\.0\.3 198\.18\.0\.4$/);
  await Promise.all(under.splice(0));
}

/** Everybody else does not. */
async function outside(stage: string): Promise<void> {
  const others = [
    ["another network's member", d],
    ["a VM in no network", e],
    ["a member of a member's other network", f],
    ["the host", world.prober()],
    ["the internet", world.prober("internet")],
  ] as const;
  for (const [who, from] of others) {
    void attempt(`${stage}: ${who} to b`, from, tcp("198.18.0.3:8080"));
    void attempt(`${stage}: ${who} to b's plain address`, from, tcp(`${plainB}:8080`));
    void attempt(`${stage}: ${who} pings a`, from, ping("198.18.0.2"));
  }
  void attempt(`${stage}: d asks for b`, d, ask(d, "b"));
  void attempt(`${stage}: d asks for b.app`, d, ask(d, "b.app"));
  void attempt(`${stage}: a asks for f`, a, ask(a, "f"));
  void attempt(`${stage}: a to f`, a, tcp("10.20.0.3:8080"));
  void attempt(`${stage}: a to c's other address`, a, tcp("10.20.0.2:8080"));
  void attempt(`${stage}: a to b's plain address`, a, tcp(`${plainB}:8080`));
  void attempt(`${stage}: nobody's address`, a, tcp("198.18.0.77:8080"));
  void attempt(`${stage}: the gateway's place`, a, ping("198.18.0.1"));
  void attempt(`${stage}: the world under deny-all`, b, tcp("203.0.113.10:9000"));
  void attempt(`${stage}: the world's names under deny-all`, b, ask(b, "a.test"));
  void attempt(`${stage}: the world from a private address`, a, {
    ...tcp("203.0.113.10:9000"),
    source: "198.18.0.2",
  });
  void attempt(`${stage}: a name that was not allowed`, c, ask(c, "evil.test"));
  void attempt(`${stage}: the world goes on`, a, tcp("203.0.113.10:9000"), /server=/);
  void attempt(`${stage}: names go on`, a, ask(a, "a.test"), /rcode=0 203\.0\.113\.10$/);
  void attempt(
    `${stage}: published port`,
    world.prober("internet"),
    tcp("198.51.100.2:8102"),
    /server=/,
  );
  await Promise.all(under.splice(0));
}

if (job.spoil === undefined) {
  await inside("all in");
  await outside("all in");
}
if (job.anySource === true) {
  for (const netns of nets()) {
    const off = "for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 >$f; done";
    execFileSync("ip", ["netns", "exec", netns, "sh", "-c", off]);
  }
}

// The reverse, which tells only of members: 12 is PTR.
await attempt("reverse", a, ask(a, "3.0.18.198.in-addr.arpa", 12), /rcode=0/);
await attempt("reverse of nobody", a, ask(a, "77.0.18.198.in-addr.arpa", 12));
await attempt("no IPv6 address", a, ask(a, "b", 28));

// What b's kernel would never send: its own rules must hold it.
const mac = b.network.guest.mac;
// The second VM of a fresh installation has slot 1.
const { gatewayMac } = planFor("vm-b", 1, "fd00:0000:0000");
for (const { netns } of [a, c, f]) await world.watch(["ip", "netns", "exec", netns]);
const packet = (from: string, to: string, mark: Buffer): string =>
  ethernet(mac, gatewayMac, 0x0800, ipv4(from, to, 17, udp(4000, 5000, mark)));
const frames: Record<string, (mark: Buffer) => string> = {
  "as a peer": (mark) => packet("198.18.0.2", "198.18.0.4", mark),
  "as nobody": (mark) => packet("198.18.0.99", "198.18.0.4", mark),
  "as the world": (mark) => packet("203.0.113.10", "198.18.0.4", mark),
  "into another network": (mark) => packet("198.18.0.3", "10.20.0.3", mark),
  "to a peer's plain address": (mark) => packet("198.18.0.3", plainA, mark),
  "to all": (mark) => packet("198.18.0.3", "198.18.0.255", mark),
  "error about another's connection": (mark) => {
    const inner = ipv4("198.18.0.2", "198.18.0.4", 17, udp(4000, 5000, mark));
    return ethernet(
      mac,
      gatewayMac,
      0x0800,
      ipv4("198.18.0.3", "198.18.0.2", 1, unreachable(inner)),
    );
  },
  "claim of a peer's address": (mark) => {
    const claim = arp(2, [mac, "198.18.0.2"], [gatewayMac, "198.18.0.2"], mark.toString());
    return ethernet(mac, gatewayMac, 0x0806, claim);
  },
  // Last: once this one has arrived, those before it would have.
  control: (mark) => packet("198.18.0.3", "198.18.0.4", mark),
};
// That connection is there: a's datagram and c's answer.
const aMac = a.network.guest.mac;
const aGateway = planFor("vm-a", 0, "fd00:0000:0000").gatewayMac;
const datagram = ipv4("198.18.0.2", "198.18.0.4", 17, udp(4000, 5000, Buffer.from("MARK-own-")));
const first = ethernet(aMac, aGateway, 0x0800, datagram);
await a.probe({ kind: "frame", frame: first, dev: "eth0" });
await until(() => world.seen.has("MARK-own-"));
world.seen.clear();
const marks = new Map(Object.keys(frames).map((name, index) => [name, `MARK-${index}-`]));
const markOf = (name: string): string => marks.get(name) ?? "";
for (const [name, build] of Object.entries(frames)) {
  await b.probe({ kind: "frame", frame: build(Buffer.from(markOf(name))), dev: "eth0" });
}
await until(() => world.seen.has(markOf("control")));
for (const name of Object.keys(frames)) {
  const seen = world.seen.has(markOf(name));
  print({ name: `frame: ${name}`, good: seen === (name === "control"), got: seen ? "seen" : "" });
}
if (job.spoil !== undefined) {
  await world.stop();
  process.exit(0);
}
await attempt("frames changed nothing", c, tcp("198.18.0.2:8080"), /server=/);

/** An ICMP message: the port that this packet was for cannot be reached. */
function unreachable(about: Buffer): Buffer {
  const message = Buffer.concat([Buffer.from([3, 3, 0, 0, 0, 0, 0, 0]), about]);
  message.writeUInt16BE(checksum(message), 2);
  return message;
}

/** Wait for something that others do; a minute is for ever. */
async function until(isSo: () => boolean): Promise<void> {
  const deadline = Date.now() + 60_000;
  while (!isSo() && Date.now() < deadline) await new Promise((done) => setTimeout(done, 20));
}

// Out, in at another address, and in once more: at once, and to those who stay nothing happens.
await world.manager.place("vm-b", []);
places.set("vm-b", { names: ["b"], networks: [] });
await attempt("b has left: a to b", a, tcp("198.18.0.3:8080"));
await attempt("b has left: b to a", b, tcp("198.18.0.2:8080"));
await attempt("b has left: its name", a, ask(a, "b"));
await attempt("b has left: its own names", b, ask(b, "a"));
await attempt("b has left: c to a", c, tcp("198.18.0.2:8080"), /server=/);
for (const place of [app(9), app(3)]) {
  await world.manager.place("vm-b", [place]);
  places.set("vm-b", { names: ["b", "db"], networks: [place] });
}
// A policy is about the way out.
for (const mode of ["deny-all", "none of it", "allow-all"] as const) {
  if (mode === "none of it") {
    cutShort("vm-b");
    await world.restart();
  } else await world.manager.update("vm-a", policies[mode === "deny-all" ? "D" : "A"] ?? never());
  if (mode === "none of it") {
    for (const [vmId, { networks }] of places) {
      const letter = { "vm-a": "D", "vm-b": "D", "vm-c": "N", "vm-e": "B" }[vmId] ?? "A";
      const number = 8101 + [...places.keys()].indexOf(vmId);
      const port = { protocol: "tcp", hostAddress: "198.51.100.2", guestPort: 8080 } as const;
      await world.manager.resume(
        vmId,
        policies[letter] ?? never(),
        [{ ...port, hostPort: number }],
        networks,
      );
    }
  }
  await inside(mode === "none of it" ? "next daemon" : `a is ${mode}`);
}
await outside("at the end");

/** As after a daemon that was killed when it had noted a link and not made it. */
function cutShort(vmId: string): void {
  const there = ["ip", "-n", `vmsan-${vmId}`, "link", "del", "pn0"];
  execFileSync("env", [...realm.prefix, ...there]);
  const path = join(job.dir, `${vmId}.json`);
  const lease = JSON.parse(readFileSync(path, "utf8")) as object;
  writeFileSync(path, JSON.stringify({ ...lease, changing: true }));
}

function never(): never {
  throw new Error("cannot happen");
}

/** Namespaces of networks. */
function nets(): string[] {
  const dir = `${job.rootless === true ? `/proc/${keeper()}/root` : ""}/run/netns`;
  return existsSync(dir) ? readdirSync(dir).filter((name) => name.startsWith("vmsan-net-")) : [];
}

/** The process that keeps the rootless place. */
function keeper(): number {
  const text = readFileSync(join(job.dir, "rootless/keeper.json"), "utf8");
  return (JSON.parse(text) as { pid: number }).pid;
}

print({ name: "a namespace each", good: nets().length === 3, got: nets().join() });
for (const vmId of ["vm-d", "vm-f", "vm-a", "vm-b"]) await world.manager.detach(vmId);
print({ name: "those that are used stay", good: nets().length === 2, got: nets().join() });
await attempt("who is left goes on", c, ask(c, "a.test"), /rcode=0/);
await world.manager.detach("vm-c");
print({ name: "none is left", good: nets().length === 0, got: nets().join() });
await world.stop();
print({ name: "done", good: true, got: "" });
process.exit(0);
