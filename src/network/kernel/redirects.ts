/** What of a guest's traffic is answered here instead of where it wants to go: names, and the proxy's. Pure. */
import type { NetworkPolicy } from "../../model/policy.ts";
import { portAllowed } from "../policy/judge.ts";
import { tapName } from "./address.ts";
import { privateSubnets } from "./private-rules.ts";
import { proxyMark, proxyPort, type Family, type RuleInput } from "./rule-input.ts";

/** Families with their words in rules. */
const families = [
  [4, "ip"],
  [6, "ip6"],
] as const;

/** Whether the guest has a name server: for the world's names, or for those of its networks. */
export function hasNameServer({ policy, links }: Pick<RuleInput, "policy" | "links">): boolean {
  return policy.mode === "allow-all" || policy.mode === "custom" || links.length > 0;
}

/** Of TCP 80 and 443, those that pass the proxy on their way to names. */
function proxiedPorts(policy: NetworkPolicy): number[] {
  if (policy.mode !== "custom" || policy.allowedDomains.length === 0) return [];
  return [80, 443].filter((number) => portAllowed(policy, number));
}

/** Ports of connections that pass the proxy because secrets may be on them. */
function secretPorts({ policy, secrets }: RuleInput): number[] {
  if (policy.mode !== "allow-all" && policy.mode !== "custom") return [];
  return (secrets?.ports ?? []).filter((number) => portAllowed(policy, number));
}

/** Whether web traffic to names passes the proxy. */
export function hasProxy(rules: RuleInput): boolean {
  return proxiedPorts(rules.policy).length > 0 || secretPorts(rules).length > 0;
}

/** What is on its way to the proxy already, and what never goes there. */
function notProxied(nr: Family, ip: string): string {
  return `    ct state established socket transparent 1 meta mark set ${proxyMark} accept
    ${ip} daddr @guests${nr} return
    ${ip} daddr @host${nr} return
    ${ip} daddr @denied${nr} return
`;
}

/** The way to the proxy for TCP to addresses of a set. @param which further condition */
function toProxy(set: string, nr: Family, ip: string, which = ""): string {
  const loopback = nr === 4 ? "127.0.0.1" : "[::1]";
  return `    ${ip} daddr @${set}${nr} meta l4proto tcp ${which}tproxy ${ip} to ${loopback}:${proxyPort} meta mark set ${proxyMark} accept
`;
}

/** Names: queries to anywhere go to our server; web traffic to allowed names to the proxy. */
export function redirects(whole: RuleInput): string {
  const { policy, plan, ipv6, links } = whole;
  let text = "";
  // A member may be a name server or a web server of its own.
  const subnets = privateSubnets(links);
  const abroad = subnets === "" ? "" : `ip daddr != ${subnets} `;
  if (hasNameServer({ policy, links })) {
    text += `  chain dstnat {
    type nat hook prerouting priority dstnat; policy accept;
    iifname "${tapName}" meta nfproto ipv4 ${abroad}meta l4proto { tcp, udp } th dport 53 dnat ip to ${plan.gateway4}
${ipv6 ? `    iifname "${tapName}" meta nfproto ipv6 meta l4proto { tcp, udp } th dport 53 dnat ip6 to ${plan.gateway6}\n` : ""}  }
`;
  }
  const jumps: string[] = [];
  const chains: string[] = [];
  const jump = (ports: readonly number[], target: string): void => {
    const dport = `tcp dport { ${ports.join(", ")} }`;
    jumps.push(
      `    iifname "${tapName}" meta nfproto ipv4 ${abroad}${dport} jump ${target}4\n`,
      `    iifname "${tapName}" meta nfproto ipv6 ${dport} jump ${target}6\n`,
    );
  };
  // Before what is allowed by its address: that has no name to be looked at. Connections from a time
  // when nobody knew the address go on as they are.
  const secret = secretPorts(whole);
  if (secret.length > 0) {
    jump(secret, "secret");
    for (const [nr, ip] of families) {
      chains.push(
        `  chain secret${nr} {\n${notProxied(nr, ip)}${toProxy("secrets", nr, ip, "ct state new ")}  }\n`,
      );
    }
  }
  const web = proxiedPorts(policy);
  if (web.length > 0) {
    jump(web, "proxy");
    for (const [nr, ip] of families) {
      const byAddress = ["opened", "protected", "resolvers", "allowed"]
        .map((set) => `    ${ip} daddr @${set}${nr} return\n`)
        .join("");
      chains.push(
        `  chain proxy${nr} {\n${notProxied(nr, ip)}${byAddress}${toProxy("names", nr, ip)}  }\n`,
      );
    }
  }
  if (jumps.length === 0) return text;
  return `${text}  chain prerouting {
    type filter hook prerouting priority mangle; policy accept;
${jumps.join("")}  }
${chains.join("")}`;
}
