/**
 * What a guest tries, and under which policy it may succeed. Plain data, so that the same table
 * runs against stand-ins (policies.ts) and against real guests.
 */
import { parsePolicy } from "../../src/network/policy/parse.ts";
import type { NetworkPolicy } from "../../src/model/policy.ts";
import { arp, ethernet, icmpv6, ipv4, ipv6, tcpSyn, udp, udp6 } from "./packets.ts";

const domains =
  "a.test,*.b.test,shop.test,alias.test,rebind.test,rebindhost.test,rebind6.test,mixed.test,db.test,doh.test,metadata.test";
const cidrs = "203.0.113.32/28,2001:db8:2::40/128,10.7.7.0/24";
const denied = "203.0.113.44/32";

/** A policy with everything that one can open. */
const full = {
  mode: "custom" as const,
  allowedDomains: domains,
  allowedCidrs: cidrs,
  deniedCidrs: denied,
  allowHostPorts: "8000",
  allowIcmp: true,
  allowUdp: true,
};
const allowedPorts = [443, 9000, 5000];

/** The policies, by the letter that stands for them in expectations. */
export const policies: Record<string, NetworkPolicy> = {
  A: parsePolicy({ mode: "allow-all" }),
  D: parsePolicy({ mode: "deny-all" }),
  N: parsePolicy({ mode: "custom", allowedDomains: domains }),
  C: parsePolicy({ mode: "custom", allowedCidrs: cidrs, deniedCidrs: denied }),
  F: parsePolicy(full),
  E: parsePolicy({ mode: "custom" }),
  // What F opens, on three ports; see expected().
  P: parsePolicy({ ...full, allowedPorts }),
  B: parsePolicy({
    mode: "custom",
    allowedCidrs: "0.0.0.0/0,::/0",
    deniedCidrs: "203.0.113.44/32",
  }),
};

/** The order of the letters in expectations. */
const columns = "ADNCFEB";

/** Every policy, in the order in which they are tried. */
export const order = `${columns}P`;

/** One attempt. */
export interface Attempt {
  name: string;
  /** One letter a policy, in {@link columns}: `o` succeeds, `-` does not. */
  expect: string;
  /** For nettool; or frames, whose success is that a packet with the mark got out. */
  fields?: Record<string, unknown>;
  frames?: string[];
  mark?: string;
  /** What success looks like, beyond an answer of a server. */
  want?: RegExp;
}

/** Whether an attempt is to succeed under the policy of this letter. */
export function expected(attempt: Attempt, letter: string): boolean {
  if (letter !== "P") return attempt.expect[columns.indexOf(letter)] === "o";
  if (!expected(attempt, "F")) return false;
  // Ports narrow what the lists allow; names and the gateway's own ports are not among that.
  const { kind, addr } = attempt.fields ?? {};
  if (kind !== "tcp" && kind !== "udp" && kind !== "tls") return true;
  const [, host = "", port = ""] = /^(.*):(\d+)$/.exec(String(addr)) ?? [];
  return /^\[?(203\.0\.113|10\.7|2001:db8:2)/.test(host)
    ? allowedPorts.includes(Number(port))
    : true;
}

/** Names, as the world's upstream serves them. */
export const names: [string, string[]][] = [
  ["a.test", ["203.0.113.10", "2001:db8:2::10"]],
  ["x.b.test", ["203.0.113.10"]],
  ["b.test", ["203.0.113.10"]],
  ["shop.test", ["203.0.113.20"]],
  ["tenant.test", ["203.0.113.20"]],
  ["evil.test", ["203.0.113.30", "2001:db8:2::30"]],
  [`${"0123456789abcdef".repeat(3)}.${"0123456789abcdef".repeat(3)}.evil.test`, ["203.0.113.30"]],
  ["evila.test", ["203.0.113.30"]],
  ["a.test.evil.test", ["203.0.113.30"]],
  ["real.other", ["203.0.113.50"]],
  ["db.test", ["203.0.113.60"]],
  ["rebind.test", ["10.7.7.7"]],
  ["rebindhost.test", ["198.51.100.2"]],
  ["rebind6.test", ["::ffff:10.8.8.8"]],
  ["mixed.test", ["203.0.113.10", "127.0.0.1", "10.8.8.8"]],
  ["doh.test", ["8.8.8.8"]],
  ["metadata.test", ["169.254.169.254"]],
];

/** Lookups that a program in the guest makes before it connects. */
export const lookups: [string, number][] = [
  ["a.test", 1],
  ["a.test", 28],
  ["x.b.test", 1],
  ["shop.test", 1],
  ["alias.test", 1],
  ["db.test", 1],
  ["doh.test", 1],
  ["rebind.test", 1],
  ["metadata.test", 1],
];

/** What the table needs to know of the VM it runs in. */
export interface Site {
  gateway4: string;
  gateway6: string;
  guest4: string;
  guest6: string;
  guestMac: string;
  gatewayMac: string;
  otherGuest4: string;
  otherGateway4: string;
}

const crlf = (...lines: string[]): string => `${lines.join("\r\n")}\r\n\r\n`;
const get = (host: string, target = "/"): string => crlf(`GET ${target} HTTP/1.1`, `Host: ${host}`);

/** All attempts, for one VM. */
export function attempts(site: Site): Attempt[] {
  const list: Attempt[] = [];
  const add = (
    name: string,
    expect: string,
    fields: Record<string, unknown>,
    want?: RegExp,
  ): void => {
    list.push({ name, expect, fields, ...(want === undefined ? {} : { want }) });
  };
  const tcp = (name: string, expect: string, addr: string): void =>
    add(`tcp: ${name}`, expect, { kind: "tcp", addr });
  const http = (
    name: string,
    expect: string,
    send: string,
    want?: RegExp,
    split = 0,
    addr = "203.0.113.10:80",
  ): void => add(`http: ${name}`, expect, { kind: "tcp", addr, send, split }, want);
  const tls = (
    name: string,
    expect: string,
    addr: string,
    sni: string,
    more: Record<string, unknown> = {},
  ): void => add(`tls: ${name}`, expect, { kind: "tls", addr, name: sni, ...more });
  const datagram = (name: string, expect: string, addr: string): void =>
    add(`udp: ${name}`, expect, { kind: "udp", addr, send: "hello" });
  const dns = (
    name: string,
    expect: string,
    question: string,
    want?: RegExp,
    addr = `${site.gateway4}:53`,
    type = 1,
    kind = "dns",
  ): void => add(`dns: ${name}`, expect, { kind, addr, name: question, type }, want);
  const ping = (name: string, expect: string, addr: string): void =>
    add(`icmp: ${name}`, expect, { kind: "icmp", addr });

  http("an allowed name", "o-o-o-o", get("a.test"));
  http("an allowed name with port", "o-o-o-o", get("a.test:80"));
  http("host is an address literal", "o-----o", get("203.0.113.10"));
  http("host spoofed at an allowed address", "o-----o", get("evil.test"));
  http(
    "second request to another host",
    "o-----o",
    get("a.test") + get("evil.test"),
    /host=evil/,
    36,
  );
  http(
    "pipelined request to another host",
    "o-----o",
    get("a.test") + get("evil.test"),
    /host=evil/,
  );
  http(
    "absolute target of another host",
    "o-----o",
    get("a.test", "http://evil.test/"),
    /host=evil/,
  );
  http("lone line feeds", "o-----o", "GET / HTTP/1.1\nHost: a.test\n\n");
  http(
    "length and chunked at once",
    "o-----o",
    `${crlf("POST / HTTP/1.1", "Host: a.test", "Content-Length: 60", "Transfer-Encoding: chunked")}0\r\n\r\n${get("evil.test")}`,
    /host=evil/,
  );
  http(
    "request behind a chunked body",
    "o-----o",
    `${crlf("POST / HTTP/1.1", "Host: a.test", "Transfer-Encoding: chunked")}3\r\nabc\r\n0\r\n\r\n${get("evil.test")}`,
    /host=evil/,
  );
  http(
    "request behind a refused upgrade",
    "o-----o",
    crlf("GET / HTTP/1.1", "Host: a.test", "Connection: upgrade", "Upgrade: other") +
      get("evil.test"),
    /host=evil/,
  );
  const upgrade = (protocol: string, ...more: string[]): string =>
    crlf("GET / HTTP/1.1", "Host: a.test", "Connection: upgrade", `Upgrade: ${protocol}`, ...more);
  const socket = upgrade("websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGVzdA==");
  http("an upgrade to WebSocket", "o-o-o-o", `${socket}through`, /101[^]*through/);
  http("another protocol behind WebSocket's name", "o-----o", socket + get("evil.test"), /evil/);
  http(
    "WebSocket behind another request",
    "o-----o",
    `${get("a.test")}${socket}through`,
    /101[^]*through/,
  );
  http(
    "an upgrade to h2c",
    "o-----o",
    `${upgrade("h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")}PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n`,
    /PRI|host=$/m,
  );
  http("HTTP/2 without asking", "o-----o", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
  for (const protocol of [
    "tunnel",
    "h2c, websocket",
    "websocket, h2c",
    "websocket\r\nUpgrade: h2c",
  ]) {
    const asked = JSON.stringify(protocol);
    http(`an upgrade to ${asked}`, "o-----o", `${upgrade(protocol)}through`, /101[^]*through/);
  }
  http("an upgrade that is not needed", "o-o-o-o", upgrade("other"));
  http(
    "chunked body of HTTP/1.0",
    "o-----o",
    `${crlf("POST / HTTP/1.0", "Host: a.test", "Connection: keep-alive", "Transfer-Encoding: chunked")}0\r\n\r\n${get("evil.test")}`,
    /host=/,
  );
  http(
    "host that is for neighbours only",
    "o-----o",
    crlf("GET / HTTP/1.1", "Host: a.test", "Connection: host"),
  );
  http(
    "connect method",
    "o-----o",
    crlf("CONNECT evil.test:443 HTTP/1.1", "Host: evil.test"),
    /host=evil/,
  );
  http("in two pieces", "o-o-o-o", get("a.test"), undefined, 20);
  http(
    "right host at another's address",
    "o-----o",
    get("a.test"),
    undefined,
    0,
    "203.0.113.30:80",
  );
  http("metadata service", "-------", get("169.254.169.254"), undefined, 0, "169.254.169.254:80");
  http(
    "metadata service by its name",
    "-------",
    get("metadata.test"),
    undefined,
    0,
    "169.254.169.254:80",
  );
  http("metadata service of Alibaba", "-------", get("x"), undefined, 0, "100.100.100.200:80");
  http("wire server of Azure", "-------", get("x"), undefined, 0, "168.63.129.16:80");

  tls("an allowed name", "o-o-o-o", "203.0.113.10:443", "a.test");
  tls("an allowed name in capitals", "o-o-o-o", "203.0.113.10:443", "A.TEST");
  tls("hello in pieces", "o-o-o-o", "203.0.113.10:443", "a.test", { split: 40 });
  tls("below a wildcard", "o-o-o-o", "203.0.113.10:443", "x.b.test");
  tls("the wildcard's own name", "o-----o", "203.0.113.10:443", "b.test");
  tls("name spoofed at an allowed address", "o-----o", "203.0.113.10:443", "evil.test");
  tls("spoofed, in pieces", "o-----o", "203.0.113.10:443", "evil.test", { split: 7 });
  tls("without a name", "o-----o", "203.0.113.10:443", "");
  tls("allowed name at another's address", "o-----o", "203.0.113.30:443", "a.test");
  tls("allowed tenant of a CDN", "o-o-o-o", "203.0.113.20:443", "shop.test");
  tls("co-tenant of a CDN", "o-----o", "203.0.113.20:443", "tenant.test");
  tls("encrypted hello", "o-----o", "203.0.113.20:443", "shop.test", { ech: "tenant.test" });
  tls("suffix trick", "o-----o", "203.0.113.10:443", "evila.test");
  tls("prefix trick", "o-----o", "203.0.113.10:443", "a.test.evil.test");
  tls(
    "fronting inside TLS (invisible by design, see docs)",
    "o-o-o-o",
    "203.0.113.20:443",
    "shop.test",
    { send: get("tenant.test") },
  );
  tls("an allowed CIDR, any name", "o--oo-o", "203.0.113.40:443", "whatever.test");
  tls("DNS over HTTPS by address", "o------", "8.8.8.8:443", "dns.google");
  tls("DNS over HTTPS by an allowed name", "o------", "8.8.8.8:443", "doh.test");
  tls("DNS over HTTPS, the other one", "o------", "1.1.1.1:443", "cloudflare-dns.com");

  tcp("another port of an allowed name", "o-o-o-o", "203.0.113.60:5432");
  tcp("ssh to an allowed name", "o-o-o-o", "203.0.113.10:22");
  tcp("address not asked for", "o-----o", "203.0.113.30:22");
  tcp("allowed CIDR", "o--oo-o", "203.0.113.40:9000");
  tcp("denied inside the allowed CIDR", "o------", "203.0.113.44:9000");
  tcp("DNS over TLS in an allowed CIDR", "o------", "203.0.113.40:853");
  tcp("DNS over TLS", "o------", "1.1.1.1:853");
  tcp("port 53 of a stranger", "-------", "203.0.113.30:53");
  tcp("explicitly allowed private network", "---oo--", "10.7.7.7:9000");
  tcp("private network 10/8", "-------", "10.8.8.8:9000");
  tcp("private network 172.16/12", "-------", "172.16.7.7:9000");
  tcp("private network 192.168/16", "-------", "192.168.7.7:9000");
  tcp("host's public address", "-------", "198.51.100.2:22");
  tcp("opened port at the host's public address", "-------", "198.51.100.2:8000");
  tcp("host's private address", "-------", "10.9.0.1:22");
  tcp("gateway's ssh", "-------", `${site.gateway4}:22`);
  tcp("host's opened port at the gateway", "----o--", `${site.gateway4}:8000`);
  tcp("the proxy's own port", "-------", `${site.gateway4}:15080`);
  tcp("next hop", "-------", "169.254.0.1:22");
  tcp("other VM", "-------", `${site.otherGuest4}:8080`);
  tcp("other VM's gateway", "-------", `${site.otherGateway4}:53`);
  tcp("other VM's published port", "-------", "198.51.100.2:8090");
  tcp("own published port from inside", "-------", "198.51.100.2:8091");

  datagram("an allowed name", "o---o--", "203.0.113.10:5000");
  datagram("allowed CIDR", "o---o--", "203.0.113.40:5000");
  datagram("denied inside the allowed CIDR", "o------", "203.0.113.44:5000");
  datagram("stranger", "o------", "203.0.113.30:5000");
  datagram("QUIC to an allowed name", "o------", "203.0.113.10:443");
  datagram("QUIC to an allowed CIDR", "o---o--", "203.0.113.40:443");
  datagram("QUIC on port 80 of a name", "o------", "203.0.113.10:80");
  datagram("DNS over QUIC", "o------", "203.0.113.40:853");
  datagram("time service", "o---o--", "203.0.113.40:123");
  datagram("metadata address", "-------", "169.254.169.254:80");
  datagram("host", "-------", "198.51.100.2:5000");
  datagram("gateway", "-------", `${site.gateway4}:5000`);
  datagram("not DNS on port 53", "-------", "203.0.113.30:53");
  datagram("other VM", "-------", `${site.otherGuest4}:5000`);

  const a = /203\.0\.113\.10/;
  dns("an allowed name", "o-o-o--", "a.test", a);
  dns("mixed case", "o-o-o--", "A.tEsT", a);
  dns("asked at another resolver", "o-o-o--", "a.test", a, "8.8.8.8:53");
  dns("asked over TCP", "o-o-o--", "a.test", a, `${site.gateway4}:53`, 1, "dnstcp");
  dns("another resolver over TCP", "o-o-o--", "a.test", a, "8.8.8.8:53", 1, "dnstcp");
  dns("not allowed", "o------", "evil.test");
  dns("not allowed, at another resolver", "o------", "evil.test", undefined, "203.0.113.30:53");
  dns("below a wildcard", "o-o-o--", "x.b.test", a);
  dns("the wildcard's own name", "o------", "b.test");
  dns(
    "tunnel by long labels",
    "o------",
    `${"0123456789abcdef".repeat(3)}.${"0123456789abcdef".repeat(3)}.evil.test`,
  );
  dns("alias chain", "o-o-o--", "alias.test", /203\.0\.113\.50/);
  dns("the alias's target itself", "o------", "real.other");
  dns("rebinding to a private address", "----o--", "rebind.test");
  dns("rebinding to the host", "-------", "rebindhost.test");
  dns(
    "rebinding by a mapped address",
    "-------",
    "rebind6.test",
    undefined,
    `${site.gateway4}:53`,
    28,
  );
  dns("metadata address behind a name", "-------", "metadata.test");
  dns(
    "public and private addresses mixed",
    "o-o-o--",
    "mixed.test",
    /^open rcode=0 203\.0\.113\.10$/,
  );
  dns("a resolver behind an allowed name", "o------", "doh.test");
  dns("service record", "o------", "a.test", undefined, `${site.gateway4}:53`, 65);
  dns("text of an allowed name", "o-o-o--", "a.test", undefined, `${site.gateway4}:53`, 16);
  dns("text of another name", "o------", "evil.test", undefined, `${site.gateway4}:53`, 16);
  dns("any", "-------", "a.test", undefined, `${site.gateway4}:53`, 255);
  dns("the host's name", "o-ooooo", "host.vmsan.internal", new RegExp(site.gateway4));

  ping("an allowed name", "o---o--", "203.0.113.10");
  ping("allowed CIDR", "o---o--", "203.0.113.40");
  ping("stranger", "o------", "203.0.113.30");
  ping("private network", "----o--", "10.7.7.7");
  ping("another private network", "-------", "10.8.8.8");
  ping("metadata address", "-------", "169.254.169.254");
  ping("host", "-------", "198.51.100.2");
  ping("gateway", "o---o--", site.gateway4);
  ping("other VM", "-------", site.otherGuest4);

  http("v6: an allowed name", "o-o-o-o", get("a.test"), undefined, 0, "[2001:db8:2::10]:80");
  tls("v6: name spoofed", "o-----o", "[2001:db8:2::10]:443", "evil.test");
  tcp("v6: stranger", "o-----o", "[2001:db8:2::30]:9000");
  tcp("v6: allowed CIDR", "o--oo-o", "[2001:db8:2::40]:9000");
  tcp("v6: unique local", "-------", "[fd12::7]:9000");
  tcp("v6: host", "-------", "[2001:db8:1::2]:22");
  tcp("v6: gateway's ssh", "-------", `[${site.gateway6}]:22`);
  tcp("v6: host's opened port", "----o--", `[${site.gateway6}]:8000`);
  tcp("v6: next hop", "-------", "[fe80::1%eth0]:22");
  datagram("v6: stranger", "o------", "[2001:db8:2::30]:5000");
  datagram("v6: gateway", "-------", `[${site.gateway6}]:5000`);
  dns("v6: asked at the gateway", "o-o-o--", "a.test", a, `[${site.gateway6}]:53`);
  dns("v6: asked at a stranger", "o-o-o--", "a.test", a, "[2001:db8:2::30]:53");
  ping("v6: an allowed name", "o---o--", "2001:db8:2::10");
  ping("v6: gateway", "o---o--", site.gateway6);
  return [...list, ...frames(site)];
}

/** Attempts below IP, judged by whether anything with their mark leaves the VM's namespace. */
function frames(site: Site): Attempt[] {
  const { guest4, guest6, guestMac, gatewayMac, gateway4 } = site;
  const list: Attempt[] = [];
  const add = (name: string, expect: string, build: (mark: Buffer) => string[]): void => {
    const mark = `MARK-${list.length}-`;
    list.push({ name: `frame: ${name}`, expect, frames: build(Buffer.from(mark)), mark });
  };
  const wrap = (packet: Buffer, from = guestMac, type = 0x0800): string =>
    ethernet(from, gatewayMac, type, packet);
  const evil = "203.0.113.30";
  const closed = "-------";
  add("control: a plain datagram", "o------", (mark) => [
    wrap(ipv4(guest4, evil, 17, udp(4000, 5000, mark))),
  ]);
  add("control: a plain SYN", "o-----o", (mark) => [
    wrap(ipv4(guest4, evil, 6, tcpSyn(guest4, evil, [4001, 9000], mark))),
  ]);
  for (const [who, source] of [
    ["other VM's", site.otherGuest4],
    ["gateway's", gateway4],
    ["stranger's", "203.0.113.99"],
    ["loopback", "127.0.0.1"],
    ["unspecified", "0.0.0.0"],
  ] as const) {
    add(`${who} source address`, closed, (mark) => [
      wrap(ipv4(source, evil, 17, udp(4000, 5000, mark))),
    ]);
  }
  add("another MAC", closed, (mark) => [
    wrap(ipv4(guest4, evil, 17, udp(4000, 5000, mark)), "02:00:00:00:00:99"),
  ]);
  add("VLAN tag", closed, (mark) => [
    wrap(
      Buffer.concat([Buffer.from([0, 5, 8, 0]), ipv4(guest4, evil, 17, udp(4000, 5000, mark))]),
      guestMac,
      0x8100,
    ),
  ]);
  add("source routing through the gateway", closed, (mark) => {
    const packet = ipv4(guest4, gateway4, 17, udp(4000, 5000, mark));
    // Loose source route (option 131) to the stranger, in a header of 28 bytes.
    const options = Buffer.from([131, 7, 4, ...evil.split(".").map(Number), 0]);
    const header = Buffer.concat([packet.subarray(0, 20), options]);
    header[0] = 0x47;
    header.writeUInt16BE(packet.length + 8, 2);
    header.writeUInt16BE(0, 10);
    let sum = 0;
    for (let at = 0; at < 28; at += 2) sum += header.readUInt16BE(at);
    header.writeUInt16BE(~((sum & 65_535) + (sum >> 16)) & 65_535, 10);
    return [wrap(Buffer.concat([header, packet.subarray(20)]))];
  });
  const pieces = (target: string, port: number, mark: Buffer, id: number): string[] => {
    const whole = udp(4000, port, Buffer.concat([Buffer.alloc(64), mark]));
    return [
      wrap(ipv4(guest4, target, 17, whole.subarray(0, 16), 0x2000, id)),
      wrap(ipv4(guest4, target, 17, whole.subarray(16), 2, id)),
    ];
  };
  add("fragments to a stranger", "o------", (mark) => pieces(evil, 5000, mark, 71));
  add("fragments to the allowed CIDR", "o---o--", (mark) => pieces("203.0.113.40", 5000, mark, 72));
  add("fragments to the metadata address", closed, (mark) =>
    pieces("169.254.169.254", 80, mark, 73),
  );
  add("only a later fragment", closed, (mark) => pieces(evil, 5000, mark, 74).slice(1));
  for (const [what, protocol] of [
    ["GRE", 47],
    ["IP in IP", 4],
    ["SCTP", 132],
    ["ESP", 50],
  ] as const) {
    add(`${what} to an allowed name`, closed, (mark) => [
      wrap(ipv4(guest4, "203.0.113.10", protocol, Buffer.concat([Buffer.alloc(16), mark]))),
    ]);
  }
  add("ICMP error out of nothing", closed, (mark) => [
    wrap(
      ipv4(
        guest4,
        "203.0.113.10",
        1,
        Buffer.concat([Buffer.from([3, 1, 0xfc, 0xfe, 0, 0, 0, 0]), mark]),
      ),
    ),
  ]);
  add("datagram to everyone", closed, (mark) => [
    wrap(ipv4(guest4, "255.255.255.255", 17, udp(68, 67, mark))),
  ]);
  add("multicast", closed, (mark) => [
    wrap(ipv4(guest4, "224.0.0.251", 17, udp(5353, 5353, mark))),
  ]);
  add("DHCP request", closed, (mark) => [
    ethernet(
      guestMac,
      "ff:ff:ff:ff:ff:ff",
      0x0800,
      ipv4("0.0.0.0", "255.255.255.255", 17, udp(68, 67, mark)),
    ),
  ]);
  add("ARP: someone else's address", closed, (mark) => [
    ethernet(
      guestMac,
      "ff:ff:ff:ff:ff:ff",
      0x0806,
      arp(2, [guestMac, gateway4], ["ff:ff:ff:ff:ff:ff", gateway4], mark.toString()),
    ),
    ethernet(
      guestMac,
      gatewayMac,
      0x0806,
      arp(2, [guestMac, site.otherGuest4], [gatewayMac, gateway4], mark.toString()),
    ),
  ]);
  add("discovery protocol (LLDP)", closed, (mark) => [
    ethernet(guestMac, "01:80:c2:00:00:0e", 0x88cc, mark),
  ]);
  const far6 = "2001:db8:2::30";
  add("v6 control: a plain datagram", "o------", (mark) => [
    wrap(ipv6(guest6, far6, 17, udp6(guest6, far6, 5000, mark)), guestMac, 0x86dd),
  ]);
  for (const [who, source] of [
    ["stranger's", "2001:db8:9::9"],
    ["link-local", "fe80::99"],
    ["gateway's", site.gateway6],
  ] as const) {
    add(`v6 ${who} source address`, closed, (mark) => [
      wrap(ipv6(source, far6, 17, udp6(source, far6, 5000, mark)), guestMac, 0x86dd),
    ]);
  }
  add("v6 neighbours that do not exist", closed, (mark) =>
    Array.from({ length: 20 }, (_, n) => {
      const source = `fe80::bad:${n + 1}`;
      const body = Buffer.concat([
        Buffer.alloc(4),
        Buffer.from("fe800000000000000000000000000001", "hex"),
        Buffer.from([1, 1, 2, 0, 0, 0, 0, n]),
        mark,
      ]);
      return ethernet(
        guestMac,
        gatewayMac,
        0x86dd,
        ipv6(
          source,
          site.gateway6,
          58,
          icmpv6(source, site.gateway6, 135, body.fill(0, 0, 4)),
          255,
        ),
      );
    }),
  );
  add("v6 router advertisement", closed, (mark) => {
    const body = Buffer.concat([Buffer.from([64, 0, 7, 8]), Buffer.alloc(8), mark]);
    return [
      ethernet(
        guestMac,
        "33:33:00:00:00:01",
        0x86dd,
        ipv6("fe80::99", "ff02::1", 58, icmpv6("fe80::99", "ff02::1", 134, body), 255),
      ),
      ethernet(
        guestMac,
        "33:33:00:00:00:01",
        0x86dd,
        ipv6(guest6, "ff02::1", 58, icmpv6(guest6, "ff02::1", 134, body), 255),
      ),
    ];
  });
  add("v6 tunnel in IPv4", closed, (mark) => [
    wrap(ipv4(guest4, "203.0.113.10", 41, ipv6(guest6, far6, 17, mark))),
  ]);
  return list;
}
