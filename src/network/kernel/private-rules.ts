/**
 * What a VM's rules say of private networks. Pure. They stand beside the policy, which is about the
 * way out: who puts a VM into a network lets it talk to the others there, whatever its policy.
 *
 * A guest sends from its address in that network, or from its own, which becomes that one. Nothing
 * passes from one network into another, or into the world. No connection gets the policy's mark:
 * once its network has gone it is judged as any other that wants out.
 */
import { tapName, uplinkName, type Plan } from "./address.ts";

/** A VM's way into a private network. */
export interface RuleLink {
  /** Name of the link in the VM's namespace. */
  name: string;
  subnet: string;
  /** The VM's address in it. */
  address: string;
}

/** Addresses that the guest may send from besides its own, as a set. */
export function guestSources(plan: Plan, links: readonly RuleLink[]): string {
  if (links.length === 0) return plan.guest4;
  return `{ ${[plan.guest4, ...links.map(({ address }) => address)].join(", ")} }`;
}

/** Where queries and web traffic are the members' own affair, as a set; empty when nowhere. */
export function privateSubnets(links: readonly RuleLink[]): string {
  return links.length === 0 ? "" : `{ ${links.map(({ subnet }) => subnet).join(", ")} }`;
}

/** Lines of the forward chain, before those of the way out. */
export function privateForward(plan: Plan, links: readonly RuleLink[]): string {
  if (links.length === 0) return "";
  const each = links.map(
    ({ name, subnet, address }) =>
      `    iifname "${tapName}" oifname "${name}" ip saddr { ${plan.guest4}, ${address} } ip daddr ${subnet} goto private-out
    iifname "${name}" oifname "${tapName}" ct state { established, related } accept
    iifname "${name}" oifname "${tapName}" ip saddr ${subnet} ip daddr ${address} goto private-in
`,
  );
  return `${each.join("")}    iifname "${tapName}" oifname "${uplinkName}" ip saddr != ${plan.guest4} goto refuse
`;
}

/** The chains that those lines lead to. @param limit most connections */
export function privateChains(
  plan: Plan,
  links: readonly RuleLink[],
  limit: number,
  logGroup: number,
): string {
  if (links.length === 0) return "";
  const sources = links.map(
    ({ name, address }) => `    oifname "${name}" ip saddr ${plan.guest4} snat ip to ${address}\n`,
  );
  return `  chain private-out {
    ct state { invalid, untracked } drop
    ct state new ct count over ${limit} goto deny-too-many-connections
    ct state new limit rate 50/second burst 100 packets log prefix "a:private-network" snaplen 80 group ${logGroup}
    accept
  }
  chain private-in {
    ct state != new drop
    ct count over ${limit} drop
    accept
  }
  chain srcnat {
    type nat hook postrouting priority srcnat; policy accept;
${sources.join("")}  }
`;
}
