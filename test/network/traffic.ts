/**
 * Policies that change under traffic, connections across changes, published ports, a daemon's
 * restart, names whose addresses change; in namespaces of its own. Prints JSON lines
 * {stage, ok, got}.
 */
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { parsePolicy, type PolicyInput } from "../../src/network/policy/parse.ts";
import { ethernet, ipv4, udp } from "./packets.ts";
import { World, name } from "./world.ts";

const job = JSON.parse(process.argv[2] ?? "{}") as {
  nettool: string;
  helper: string;
  dir: string;
  changes: number;
};
const say = (stage: string, ok: boolean, got: unknown = ""): void => {
  process.stdout.write(`${JSON.stringify({ stage, ok, got })}\n`);
};
const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

name("a.test", ["203.0.113.10"]);
name("db.test", ["203.0.113.60"]);
const world = new World(job);
await world.start();
const published = [
  { protocol: "tcp", hostAddress: "127.0.0.1", hostPort: 8091, guestPort: 8080 },
  { protocol: "tcp", hostAddress: "198.51.100.2", hostPort: 9000 + 91, guestPort: 8080 },
  { protocol: "udp", hostAddress: "198.51.100.2", hostPort: 5091, guestPort: 5000 },
  { protocol: "tcp", hostAddress: "198.51.100.2", hostPort: 9001, guestPort: 9001 },
] as const;
const custom = (input: PolicyInput) => parsePolicy({ mode: "custom", ...input });
const names = custom({ allowedDomains: "a.test,db.test" });
const cidr = custom({ allowedCidrs: "203.0.113.40/32", allowUdp: true });
const guest = await world.guest("vm-guest", names, published, ["--tcp", "8080", "--udp", "5000"]);
const gateway = "198.19.0.1:53";
const set = (policy: ReturnType<typeof custom>): Promise<void> =>
  world.manager.update("vm-guest", policy);
const lookUp = (host: string): Promise<string> =>
  guest.probe({ kind: "dns", addr: gateway, name: host, type: 1 });

// Published ports, under deny-all, from the host and from outside.
const host = world.prober();
const outside = world.prober("internet");
async function ports(stage: string): Promise<void> {
  const tcpHost = await host.probe({ kind: "tcp", addr: "127.0.0.1:8091", send: "hello" });
  say(
    `${stage}: tcp from the host`,
    /server=198\.19\.0\.2:8080 peer=198\.19\.0\.1:\d+\nhello/.test(tcpHost),
    tcpHost,
  );
  const tcpOut = await outside.probe({ kind: "tcp", addr: "198.51.100.2:9091", send: "hello" });
  say(`${stage}: tcp from outside`, tcpOut.includes("server=198.19.0.2:8080"), tcpOut);
  const udpOut = await outside.probe({ kind: "udp", addr: "198.51.100.2:5091", send: "hello" });
  say(`${stage}: udp from outside`, udpOut.includes("server=198.19.0.2:5000"), udpOut);
  const closed = await outside.probe({ kind: "tcp", addr: "198.51.100.2:9001", send: "hello" });
  say(`${stage}: a port the guest does not serve`, closed.startsWith("closed"), closed);
  const direct = await host.probe({ kind: "tcp", addr: "198.19.0.2:8080", timeoutMs: 300 });
  say(`${stage}: no other way in`, direct.startsWith("closed"), direct);
}
await set(parsePolicy({ mode: "deny-all" }));
await ports("deny-all");
const quiet = await guest.probe({ kind: "tcp", addr: "203.0.113.40:9000" });
say("deny-all: nothing out", quiet.startsWith("closed"), quiet);
await set(parsePolicy({ mode: "allow-all" }));
const own = await guest.probe({ kind: "tcp", addr: "203.0.113.40:9000" });
say(
  "the guest's own connections to a published number",
  own.includes("server=203.0.113.40:9000"),
  own,
);

/** A connection held open across a change; whether its second half still came through. */
async function across(
  stage: string,
  from: ReturnType<typeof custom>,
  to: ReturnType<typeof custom>,
  fields: Record<string, string>,
  survives: boolean,
): Promise<void> {
  await set(from);
  await lookUp("a.test");
  await lookUp("db.test");
  const first = fields["first"] ?? "one";
  const held = guest.probe({
    kind: "tcp",
    ...fields,
    send: first + (fields["second"] ?? "SECOND"),
    hold: first.length,
    pauseMs: 350,
  });
  await sleep(150);
  await set(to);
  const got = await held;
  say(`across: ${stage}`, got.includes(fields["mark"] ?? "SECOND") === survives, got);
}
const deny = parsePolicy({ mode: "deny-all" });
const all = parsePolicy({ mode: "allow-all" });
await across(
  "a CIDR's connection is cut by deny-all",
  cidr,
  deny,
  { addr: "203.0.113.40:9000" },
  false,
);
await across(
  "… and lives under another policy that allows it",
  cidr,
  all,
  { addr: "203.0.113.40:9000" },
  true,
);
await across(
  "allow-all's connection is cut when its target is not listed",
  all,
  names,
  { addr: "203.0.113.40:9000" },
  false,
);
await across(
  "a name's connection lives while the name is allowed",
  names,
  custom({ allowedDomains: "db.test" }),
  { addr: "203.0.113.60:5432" },
  true,
);
await across(
  "… and is cut with the name",
  names,
  custom({ allowedDomains: "a.test" }),
  { addr: "203.0.113.60:5432" },
  false,
);
const request = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
const web = {
  addr: "203.0.113.10:80",
  first: request,
  second: request.replace("/ ", "/two "),
  mark: "a.test\nHTTP",
};
await across(
  "a proxied connection lives while its name is allowed",
  names,
  custom({ allowedDomains: "a.test" }),
  web,
  true,
);
await across(
  "… and is cut with the name",
  names,
  custom({ allowedDomains: "db.test" }),
  web,
  false,
);
const tls = { kind: "tls", addr: "203.0.113.10:443", name: "a.test" };
await across(
  "a TLS connection is cut by a denied CIDR",
  names,
  custom({ allowedDomains: "a.test", deniedCidrs: "203.0.113.10/32" }),
  tls,
  false,
);
await across(
  "… and lives under more names",
  names,
  custom({ allowedDomains: "a.test,*.more.test" }),
  tls,
  true,
);

// Changes under traffic: what both policies forbid never passes.
world.seen.clear();
const { mac } = guest.network.guest;
const gatewayMac = (await import("../../src/network/kernel/address.ts")).planFor(
  "vm-guest",
  0,
  "fd00:0000:0000",
).gatewayMac;
const datagram = (target: string, mark: string, id: number): string =>
  ethernet(
    mac,
    gatewayMac,
    0x0800,
    ipv4("198.19.0.2", target, 17, udp(4000 + (id % 100), 5000, Buffer.from(mark)), 0, id),
  );
const running = new AbortController();
let sent = 0;
let leaks = 0;
const traffic = Promise.all(
  [0, 1].map(async (lane) => {
    for (let id = lane; !running.signal.aborted; id += 2) {
      await guest.probe({
        kind: "frame",
        dev: "eth0",
        frame: datagram("203.0.113.30", "MARK-forbidden-", id),
      });
      await guest.probe({
        kind: "frame",
        dev: "eth0",
        frame: datagram("203.0.113.40", "MARK-sometimes-", id),
      });
      sent += 2;
      if (id % 10 !== 0) continue;
      const got = await guest.probe({ kind: "tcp", addr: "203.0.113.30:9000", timeoutMs: 200 });
      if (got.startsWith("open")) leaks += 1;
    }
  }),
);
for (let change = 0; change < job.changes; change += 1) await set(change % 2 === 0 ? cidr : names);
running.abort();
await traffic;
await sleep(100);
say(
  `${job.changes} changes under traffic`,
  leaks === 0 && !world.seen.has("MARK-forbidden-") && world.seen.has("MARK-sometimes-"),
  { sent, leaks, seen: [...world.seen] },
);

// A daemon's restart: closed meanwhile, then as before.
await set(names);
await world.manager.close();
const meanwhile = await guest.probe({
  kind: "dns",
  addr: gateway,
  name: "a.test",
  type: 1,
  timeoutMs: 300,
});
say("no daemon: names do not resolve", meanwhile.startsWith("closed"), meanwhile);
await world.restart();
await world.manager.resume("vm-guest", names, published);
const again = await lookUp("a.test");
say("after a restart: names", again.includes("203.0.113.10"), again);
const page = await guest.probe({ kind: "tcp", addr: "203.0.113.10:80", send: request });
say("after a restart: the proxy", page.includes("host=a.test"), page);
await ports("after a restart");
await world.restart();
await world.manager.resume("vm-guest", deny, published);
const closed = await lookUp("a.test");
say("after a restart: a policy that changed meanwhile", closed.startsWith("closed"), closed);

// The helper dies: sockets stay, the next request starts another.
await set(names);
for (const pid of readdirSync("/proc").filter((entry) => /^\d+$/.test(entry))) {
  // Only this world is in our /proc; processes that end meanwhile are none of ours.
  const path = `/proc/${pid}/comm`;
  if (existsSync(path) && readFileSync(path, "utf8").trim() === "vmsan-nethelper") {
    process.kill(Number(pid), "SIGKILL");
  }
}
await sleep(100);
name("a.test", ["203.0.113.10"]);
const still = await lookUp("a.test");
say("after the helper died: names", still.includes("203.0.113.10"), still);
await ports("after the helper died");

// A name with a TTL of a second and a new address each time.
await set(names);
for (let turn = 0; turn < 8; turn += 1) {
  const address = `203.0.113.${[10, 20, 40, 50][turn % 4]}`;
  name("a.test", [address], 1);
  const answer = await lookUp("a.test");
  const got = await guest.probe({ kind: "tcp", addr: `${address}:22` });
  say(
    `changing address ${turn}`,
    answer.includes(address) && got.includes("server="),
    `${answer} ${got}`,
  );
}

// The decision log.
const log = world.manager.decisions("vm-guest");
const entry = (rule: string): boolean => log.some((line) => line.rule === rule);
await guest.probe({ kind: "tcp", addr: "169.254.169.254:80" });
await sleep(200);
say(
  "decision log",
  entry("allowed-domain") &&
    world.manager
      .decisions("vm-guest")
      .some(
        (line) =>
          line.rule === "protected" &&
          line.address === "169.254.169.254" &&
          line.port === 80 &&
          line.verdict === "denied",
      ),
  log.slice(-5),
);
await world.stop();
say("done", true);
process.exit(0);
