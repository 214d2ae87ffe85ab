/**
 * The text of the `ip` batches and rules that make private networks. Pure.
 *
 * Such a network is a namespace without an address: a router that knows one way to each member.
 * A link leads there from the namespace of every VM that is in it. What a guest may send is judged
 * in its own VM's namespace (kernel/private-rules.ts); here the kernel refuses what comes from
 * another link than the way back leads over (rp_filter).
 */
import { mtu, nextHop4, tapName, type Plan } from "../kernel/address.ts";

/** One VM's way into a network, as its lease keeps it. */
export interface PrivateLink {
  /** The network's name. */
  network: string;
  /** Name of the network's namespace. */
  netns: string;
  /** Number of the link in the VM's namespace. */
  index: number;
  subnet: string;
  /** The VM's address in it. */
  address: string;
}

/** Name of the link in the VM's namespace. */
export function linkName({ index }: Pick<PrivateLink, "index">): string {
  return `pn${index}`;
}

/** Name of the link in the network's namespace. */
function memberName({ slot }: Plan): string {
  return `m${slot}`;
}

/** Kernel settings of a network's namespace, below /proc/sys/net. */
export const networkSysctls: Readonly<Record<string, string>> = {
  "ipv4/ip_forward": "1",
  "ipv4/conf/all/rp_filter": "1",
  "ipv4/conf/default/rp_filter": "1",
  "ipv4/conf/all/send_redirects": "0",
  "ipv4/conf/default/send_redirects": "0",
  "ipv4/conf/all/accept_redirects": "0",
  "ipv4/conf/all/accept_source_route": "0",
  "ipv6/conf/all/disable_ipv6": "1",
  "ipv6/conf/default/disable_ipv6": "1",
};

/** What a network's namespace lets through: from member to member, and word that there is none. */
export const networkRuleset = `table inet vmsan
delete table inet vmsan
table inet vmsan {
  chain input {
    type filter hook input priority filter; policy drop;
  }
  chain forward {
    type filter hook forward priority filter; policy drop;
    iifname "m*" oifname "m*" meta nfproto ipv4 accept
  }
  chain output {
    type filter hook output priority filter; policy drop;
    icmp type destination-unreachable accept
  }
}
`;

/** The pair between a VM's namespace and the network's. For `ip -batch` in the realm. */
export function pairLinks(plan: Plan, link: PrivateLink): string {
  const member = memberName(plan);
  const macs = { outer: plan.hostMac, inner: plan.uplinkMac };
  return `link add ${member} netns ${link.netns} mtu ${mtu} address ${macs.outer} type veth peer name ${linkName(link)} mtu ${mtu} address ${macs.inner} netns ${plan.netns}
`;
}

/** The network's side: the one way to the member. For `ip -n NETNS -batch`. */
export function networkSide(plan: Plan, link: PrivateLink): string {
  const member = memberName(plan);
  return `link set dev ${member} addrgenmode none
link set dev ${member} up
neighbour add ${link.address} lladdr ${plan.uplinkMac} dev ${member} nud permanent
route replace ${link.address}/32 dev ${member}
`;
}

/** The VM's side: its private address to the guest, the others' over the link. For `ip -n NETNS -batch`. */
export function memberSide(plan: Plan, link: PrivateLink): string {
  const name = linkName(link);
  return `link set dev ${name} addrgenmode none
link set dev ${name} up
neighbour add ${nextHop4} lladdr ${plan.hostMac} dev ${name} nud permanent
route add ${link.subnet} via ${nextHop4} dev ${name} onlink
neighbour replace ${link.address} lladdr ${plan.guestMac} dev ${tapName} nud permanent
route replace ${link.address}/32 dev ${tapName}
`;
}

/** Take all that away again. For `ip -force -batch`, in the VM's namespace. */
export function unlink(link: PrivateLink): string {
  return `link del dev ${linkName(link)}
route del ${link.address}/32 dev ${tapName}
neighbour del ${link.address} dev ${tapName}
`;
}
