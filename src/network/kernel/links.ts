/** The text of the `ip` and `tc` batches that make, shape and remove a VM's links. Pure. */
import { mtu, nextHop4, nextHop6, shaperName, tapName, uplinkName, type Plan } from "./address.ts";
import { proxyMark } from "./rule-input.ts";

/**
 * Routing table of the namespace that delivers proxied packets locally. The rule that leads there
 * is made by the helper for IPv6: one `ip` batch can make rules of one family only.
 */
export const proxyTable = 100;

/** What the host does: namespace, veth pair, way back to the guest. For `ip -batch`. */
export function hostLinks(plan: Plan, ipv6: boolean): string {
  const v6 = ipv6
    ? `neighbour add ${plan.guest6} lladdr ${plan.uplinkMac} dev ${plan.hostLink} nud permanent
route add ${plan.guest6}/128 dev ${plan.hostLink}
`
    : "";
  return `link add ${plan.hostLink} mtu ${mtu} address ${plan.hostMac} type veth peer name ${uplinkName} mtu ${mtu} address ${plan.uplinkMac} netns ${plan.netns}
link set dev ${plan.hostLink} addrgenmode none
link set dev ${plan.hostLink} up
neighbour add ${plan.guest4} lladdr ${plan.uplinkMac} dev ${plan.hostLink} nud permanent
route add ${plan.guest4}/32 dev ${plan.hostLink}
${v6}`;
}

/**
 * What is inside the namespace. Every neighbour is fixed: nothing the guest says about
 * addresses is ever believed. For `ip -n NETNS -batch`.
 *
 * The tap has no owner, so that whoever runs in the namespace may attach to it without privileges:
 * the VMM, whose user id is chosen at each start by its driver. Nobody else gets there: entering
 * the namespace takes CAP_SYS_ADMIN over it, and a tap of one queue has one user at a time.
 */
export function guestLinks(plan: Plan, ipv6: boolean): string {
  const v6 = ipv6
    ? `address add ${plan.gateway6}/${plan.prefix6} dev ${tapName} nodad
neighbour add ${plan.guest6} lladdr ${plan.guestMac} dev ${tapName} nud permanent
neighbour add ${nextHop6} lladdr ${plan.hostMac} dev ${uplinkName} nud permanent
route add ::/0 via ${nextHop6} dev ${uplinkName} onlink
route add local ::/0 dev lo table ${proxyTable}
`
    : "";
  return `link set dev lo up
link set dev ${uplinkName} addrgenmode none
link set dev ${uplinkName} up
tuntap add dev ${tapName} mode tap
link set dev ${tapName} mtu ${mtu} address ${plan.gatewayMac} addrgenmode none
link set dev ${tapName} up
address add ${plan.gateway4}/${plan.prefix4} dev ${tapName}
neighbour add ${plan.guest4} lladdr ${plan.guestMac} dev ${tapName} nud permanent
neighbour add ${nextHop4} lladdr ${plan.hostMac} dev ${uplinkName} nud permanent
route add 0.0.0.0/0 via ${nextHop4} dev ${uplinkName} onlink
rule add fwmark ${proxyMark} lookup ${proxyTable}
route add local 0.0.0.0/0 dev lo table ${proxyTable}
${v6}`;
}

/** Kernel settings of the namespace, below /proc/sys/net. */
export function guestSysctls(ipv6: boolean): Record<string, string> {
  return {
    "ipv4/ip_forward": "1",
    "ipv4/conf/all/send_redirects": "0",
    [`ipv4/conf/${tapName}/send_redirects`]: "0",
    "ipv4/conf/all/accept_redirects": "0",
    "ipv4/conf/all/accept_source_route": "0",
    ...(ipv6 ? { "ipv6/conf/all/forwarding": "1" } : { "ipv6/conf/all/disable_ipv6": "1" }),
  };
}

/** Remove the host's side of a VM's network. For `ip -force -batch`. */
export function removeLinks(
  plan: Pick<Plan, "netns" | "hostLink">,
  has: { link: boolean; netns: boolean },
): string {
  return (
    (has.link ? `link del dev ${plan.hostLink}\n` : "") +
    (has.netns ? `netns del ${plan.netns}\n` : "")
  );
}

/** The extra link that shapes what the guest sends. */
export function shaperLink(): string {
  return `link add ${shaperName} type ifb\nlink set dev ${shaperName} up\n`;
}

/**
 * Limit both directions on the tap's host side, where the guest cannot undo it. For `tc -batch`.
 * @param mbit megabits a second
 */
export function shape(mbit: number, change: boolean): string {
  // A burst of 4 ms keeps the rate exact with timers of 1 ms; 32 KiB lets small rates pass
  // segments of full size after segmentation offload (up to 64 KiB).
  const burst = Math.max(65_536, Math.round((mbit * 1e6) / 8 / 250));
  const tbf = `tbf rate ${mbit}mbit burst ${burst} latency 60ms`;
  const verb = change ? "change" : "add";
  const filter = `qdisc add dev ${tapName} handle ffff: ingress
filter add dev ${tapName} parent ffff: protocol all u32 match u32 0 0 action mirred egress redirect dev ${shaperName}
`;
  return `qdisc ${verb} dev ${tapName} root ${tbf}\nqdisc ${verb} dev ${shaperName} root ${tbf}\n${change ? "" : filter}`;
}

/** Take the limit away. For `tc -batch`. */
export function unshape(): string {
  return `qdisc del dev ${tapName} root\nqdisc del dev ${tapName} ingress\nqdisc del dev ${shaperName} root\n`;
}

/** Take the extra link away. For `ip -batch`. */
export const unshapeLink = `link del dev ${shaperName}\n`;
