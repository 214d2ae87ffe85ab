/**
 * network/: what a VM may reach. Takes a NetworkPolicy, gives a network namespace whose rules
 * hold against the guest. rules.ts, the heart: from policy to one nftables transaction. Pure.
 *
 * All filtering is in the VM's own namespace, between its tap and its way out:
 * - `netdev` table: only frames with the guest's own MAC and addresses get in at all;
 * - `prerouting`: TCP 80 and 443 to addresses of allowed names go to the proxy (TPROXY);
 * - `input`: the guest reaches the name server, the proxy and opened host ports, no more;
 * - `forward`: `verdict`, in the order denied, allowed, default.
 *
 * A connection is judged once and then carries the policy's generation as its mark. After a
 * change the marks are old: every packet, in either direction, is judged again by the
 * connection's original destination, so what is now forbidden is cut and the rest goes on.
 */
import type { NetworkPolicy } from "../../model/policy.ts";
import { linkLocalOf, tapName, uplinkName } from "./address.ts";
import { guestSources, privateChains, privateForward } from "./private-rules.ts";
import { hasNameServer, hasProxy, redirects } from "./redirects.ts";
import { proxyMark, type Family, type NameAddress, type RuleInput } from "./rule-input.ts";
import { contains, formatCidr, parseCidr, type Cidr } from "../policy/cidr.ts";
import { dohResolvers, guestRanges, protectedRanges } from "../policy/ranges.ts";

/** netlink log group that decisions are sent to. */
export const logGroup = 86;

/** Most addresses of allowed names kept at a time, each family. */
export const maxNameAddresses = 4096;

/** Most connections a guest may have open: protects the host's connection table. */
const maxConnections = 16_384;

/** Ports on which other protocols than plain names over UDP and TCP 53 answer queries. */
const resolverPorts = "{ 53, 853, 5353, 8853 }";

/** CIDRs given as text; anything else was refused when the policy was parsed. */
const parsed = (list: readonly string[]): Cidr[] =>
  list.map(parseCidr).filter((entry) => entry !== undefined);

/** Whether an allowed CIDR names protected addresses on purpose: it lies wholly in one range. */
function isExplicit(entry: Cidr): boolean {
  return [...protectedRanges, ...dohResolvers].some((range) => contains(range, entry));
}

/** A set of CIDRs of one family, possibly empty. */
function cidrSet(name: string, family: Family, list: readonly Cidr[]): string {
  const own = list.filter((entry) => entry.family === family).map(formatCidr);
  const elements = own.length === 0 ? "" : ` elements = { ${own.join(", ")} };`;
  return `  set ${name}${family} { type ipv${family}_addr; flags interval; auto-merge;${elements} }\n`;
}

/** A set of single addresses with time limits. */
function nameSet(name: string, family: Family, list: readonly NameAddress[]): string {
  const own = list.filter((entry) => entry.address.includes(":") === (family === 6));
  const elements =
    own.length === 0
      ? ""
      : ` elements = { ${own.map((entry) => `${entry.address} timeout ${entry.seconds}s`).join(", ")} };`;
  return `  set ${name}${family} { type ipv${family}_addr; flags timeout; size ${maxNameAddresses};${elements} }\n`;
}

/** All sets. */
function sets({ policy, plan, hostAddresses, names, heldNames, secrets }: RuleInput): string {
  const guests = [...guestRanges, ...parsed([`${plan.guest6}/48`])];
  const allowed = parsed(policy.allowedCidrs);
  const held = heldNames.map((address) => `${address}/${address.includes(":") ? 128 : 32}`);
  let text = "";
  for (const family of [4, 6] as const) {
    text += cidrSet("host", family, parsed(hostAddresses));
    text += cidrSet("guests", family, guests);
    text += cidrSet("denied", family, parsed(policy.deniedCidrs));
    text += cidrSet("opened", family, allowed.filter(isExplicit));
    text += cidrSet("protected", family, protectedRanges);
    text += cidrSet("resolvers", family, dohResolvers);
    text += cidrSet(
      "allowed",
      family,
      allowed.filter((entry) => !isExplicit(entry)),
    );
    text += nameSet("names", family, names);
    if (secrets !== undefined) text += nameSet("secrets", family, secrets.addresses);
    text += cidrSet("held", family, parsed(held));
  }
  return text;
}

/** Whether the guest may send ICMP echo requests to what it may reach. */
function allowsPing(policy: NetworkPolicy): boolean {
  return policy.mode === "allow-all" || (policy.mode === "custom" && policy.allowIcmp);
}

/**
 * Frames from the guest: its own addresses or nothing. Not even link-local ones of its choice:
 * the kernel's table of neighbours is one for all namespaces, and each would take a place in it.
 */
function ingress({ plan, ipv6, links }: RuleInput): string {
  const v6 = ipv6
    ? `    ip6 saddr ${plan.guest6} icmpv6 type { 133, 134, 137, 138 } drop
    ip6 saddr ${plan.guest6} accept
    ip6 saddr { ::, ${linkLocalOf(plan.guestMac)} } ip6 hoplimit 255 icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
`
    : "";
  return `table netdev vmsan {
  chain guest {
    type filter hook ingress device "${tapName}" priority -500; policy drop;
    ether saddr != ${plan.guestMac} drop
    arp htype 1 arp ptype 0x0800 arp operation { request, reply } arp saddr ether ${plan.guestMac} arp saddr ip ${guestSources(plan, links)} arp daddr ip ${plan.gateway4} accept
    ip hdrlength != 5 drop
    ip saddr ${guestSources(plan, links)} accept
${v6}  }
}
`;
}

/** The chains that end a packet's way: log, then refuse. */
function endings(generation: number): string {
  const reasons = [
    "deny-all",
    "other-vm",
    "host",
    "gateway",
    "denied-cidr",
    "resolver",
    "protected",
    "protocol",
    "port",
    "too-many-connections",
    "default-deny",
  ];
  const allowedBy = ["allow-all", "allowed-cidr", "allowed-domain", "allowed-host-port"];
  const deny = reasons.map(
    (reason) => `  chain deny-${reason} {
    limit rate 20/second burst 40 packets log prefix "d:${reason}" snaplen 80 group ${logGroup}
    goto refuse
  }
`,
  );
  const accept = allowedBy.map(
    (reason) => `  chain allow-${reason} {
    ct state new limit rate 50/second burst 100 packets log prefix "a:${reason}" snaplen 80 group ${logGroup}
    ct mark set ${generation} accept
  }
`,
  );
  return `  chain refuse {
    iifname != "${tapName}" drop
    meta l4proto tcp reject with tcp reset
    reject with icmpx admin-prohibited
  }
${deny.join("")}${accept.join("")}`;
}

/** What the guest reaches in its namespace itself. */
function input(whole: RuleInput): string {
  const { policy, plan, ipv6, links } = whole;
  const gateway = (rule: string): string =>
    `    ip daddr ${plan.gateway4} ${rule}\n${ipv6 ? `    ip6 daddr ${plan.gateway6} ${rule}\n` : ""}`;
  let rules = "";
  if (ipv6) rules += "    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept\n";
  // Answers to connections that the daemon opened for published ports.
  rules += "    ct direction reply ct state { established, related } accept\n";
  if (hasProxy(whole)) rules += `    meta l4proto tcp meta mark ${proxyMark} accept\n`;
  if (hasNameServer({ policy, links })) {
    rules += gateway("meta l4proto { tcp, udp } th dport 53 accept");
  }
  if (policy.allowHostPorts.length > 0) {
    rules += gateway(
      `tcp dport { ${policy.allowHostPorts.join(", ")} } goto allow-allowed-host-port`,
    );
  }
  if (allowsPing(policy)) {
    rules += `    ip daddr ${plan.gateway4} icmp type echo-request accept\n`;
    if (ipv6) rules += `    ip6 daddr ${plan.gateway6} icmpv6 type echo-request accept\n`;
  }
  return `  chain input {
    type filter hook input priority filter; policy drop;
    iifname "${tapName}" jump from-guest
  }
  chain from-guest {
${rules}    goto deny-gateway
  }
  chain output {
    type filter hook output priority filter; policy drop;
    oifname { "${tapName}", "lo" } accept
  }
`;
}

/** Rules on the port of the connection's original destination; both directions are judged. */
function port(ports: string, target: string): string[] {
  return [
    `meta l4proto { tcp, udp } ct direction original th dport ${ports} goto ${target}`,
    `meta l4proto { tcp, udp } ct direction reply th sport ${ports} goto ${target}`,
  ];
}

/** The decision itself, in terms of the connection's original destination. */
function verdict(nr: Family, { policy }: RuleInput): string {
  const to = `ct original ip${nr === 6 ? "6" : ""} daddr`;
  const echo =
    nr === 4
      ? "icmp type { echo-request, echo-reply }"
      : "icmpv6 type { echo-request, echo-reply }";
  const lines: string[] = [];
  if (policy.mode === "deny-all" || policy.mode === "none") {
    lines.push("goto deny-deny-all");
  } else {
    lines.push(
      `${to} @guests${nr} goto deny-other-vm`,
      `${to} @host${nr} goto deny-host`,
      `${to} @denied${nr} goto deny-denied-cidr`,
    );
    if (policy.mode === "allow-all") {
      lines.push(
        `${to} @protected${nr} goto deny-protected`,
        ...port("53", "deny-resolver"),
        `meta l4proto { tcp, udp } goto allow-allow-all`,
        `${echo} goto allow-allow-all`,
        "goto deny-protocol",
      );
    } else {
      lines.push(
        ...port(resolverPorts, "deny-resolver"),
        `${to} @opened${nr} goto cidr${nr}`,
        `${to} @protected${nr} goto deny-protected`,
        `${to} @resolvers${nr} goto deny-resolver`,
        `${to} @allowed${nr} goto cidr${nr}`,
        `${to} @names${nr} goto name${nr}`,
        // Reached by connections of an earlier policy only: a new one needs a fresh answer.
        `ct state established ${to} @held${nr} goto name${nr}`,
        "goto deny-default-deny",
      );
    }
  }
  const { allowedPorts } = policy;
  const narrowed =
    allowedPorts.length > 0 ? port(`!= { ${allowedPorts.join(", ")} }`, "deny-port") : [];
  const cidr = [
    ...narrowed,
    "meta l4proto tcp goto allow-allowed-cidr",
    ...(policy.allowUdp ? ["meta l4proto udp goto allow-allowed-cidr"] : []),
    ...(policy.allowIcmp ? [`${echo} goto allow-allowed-cidr`] : []),
    "goto deny-protocol",
  ];
  // 80 and 443 would escape the proxy here (and QUIC cannot be read by it): never.
  const name = [
    ...narrowed,
    ...port("{ 80, 443 }", "deny-protocol"),
    "meta l4proto tcp goto allow-allowed-domain",
    ...(policy.allowUdp ? ["meta l4proto udp goto allow-allowed-domain"] : []),
    ...(policy.allowIcmp ? [`${echo} goto allow-allowed-domain`] : []),
    "goto deny-protocol",
  ];
  const chain = (title: string, body: string[]): string =>
    `  chain ${title}${nr} {\n${body.map((line) => `    ${line}\n`).join("")}  }\n`;
  return chain("cidr", cidr) + chain("name", name) + chain("verdict", lines);
}

/** Packets between the guest and the world. */
function forward(rules: RuleInput): string {
  const { generation, links, plan } = rules;
  const judge = `    meta nfproto ipv4 goto verdict4\n    meta nfproto ipv6 goto verdict6\n`;
  return `  chain forward {
    type filter hook forward priority filter; policy drop;
${privateForward(plan, links)}    iifname "${tapName}" oifname "${uplinkName}" goto outbound
    iifname "${uplinkName}" oifname "${tapName}" goto inbound
  }
  chain outbound {
    ct direction reply drop
    ct state established ct mark ${generation} accept
    ct state { invalid, untracked, related } drop
    ct state new ct count over ${maxConnections} goto deny-too-many-connections
${judge}  }
  chain inbound {
    ct direction original drop
    ct state { established, related } ct mark ${generation} accept
    ct state != established drop
${judge}  }
${privateChains(plan, links, maxConnections, logGroup)}`;
}

/**
 * The whole ruleset of a VM's namespace as one transaction for `nft -f -`: it replaces what is
 * there, so that at every instant either the old or the new rules hold.
 */
export function ruleset(rules: RuleInput): string {
  return `table netdev vmsan
delete table netdev vmsan
table inet vmsan
delete table inet vmsan
${ingress(rules)}table inet vmsan {
${sets(rules)}${endings(rules.generation)}${verdict(4, rules)}${verdict(6, rules)}${forward(rules)}${input(rules)}${redirects(rules)}}
`;
}

/** Transaction that adds addresses of allowed names, or of servers with secrets, or renews them. */
export function addNames(entries: readonly NameAddress[], to: "names" | "secrets"): string {
  // An element that exists keeps its old limit when added again: delete it first. Deleting
  // needs it to exist, so it is added before; the transaction shows none of this.
  return entries
    .map(({ address, seconds }) => {
      const set = `element inet vmsan ${to}${address.includes(":") ? 6 : 4}`;
      return `add ${set} { ${address} }\ndelete ${set} { ${address} }\nadd ${set} { ${address} timeout ${seconds}s }\n`;
    })
    .join("");
}

/**
 * The host's own, constant table: guests never reach the host or each other through it, nothing
 * new reaches them, and what leaves carries the host's address.
 * @param prefix6 the guests' /48
 */
export function hostRuleset(prefix6: string): string {
  return `table inet vmsan
delete table inet vmsan
table inet vmsan {
  chain input {
    type filter hook input priority filter - 10; policy accept;
    iifname "vmsan*" drop
  }
  chain forward {
    type filter hook forward priority filter - 10; policy accept;
    iifname "vmsan*" oifname "vmsan*" drop
    oifname "vmsan*" ct state != { established, related } drop
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    oifname != "vmsan*" ip saddr ${guestRanges.map(formatCidr).join(", ")} masquerade
    oifname != "vmsan*" ip6 saddr ${prefix6}::/48 masquerade
  }
}
`;
}
