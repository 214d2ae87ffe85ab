/** The policy's answers for names, addresses and ports, as the name server and the proxy need them. Pure. */
import type { NetworkPolicy } from "../../model/policy.ts";
import { contains, embeddedV4, parseAddress, parseCidr, type Address, type Cidr } from "./cidr.ts";
import { dohResolvers, guestRanges, protectedRanges } from "./ranges.ts";

/** A name as it is compared: lower case, no final dot. */
export function normalName(name: string): string {
  return name.toLowerCase().replace(/\.$/, "");
}

/** Whether a list of domains (`a.example`, `*.a.example`) holds a name. */
export function matchesDomain(domains: readonly string[], name: string): boolean {
  const plain = normalName(name);
  return domains.some((domain) =>
    domain.startsWith("*.")
      ? plain.endsWith(domain.slice(1)) && plain.length > domain.length - 1
      : plain === domain,
  );
}

/** Whether the guest may look a name up. */
export function nameAllowed(policy: NetworkPolicy, name: string): boolean {
  if (policy.mode === "allow-all") return true;
  return policy.mode === "custom" && matchesDomain(policy.allowedDomains, name);
}

/** Whether a port is among those of what the policy's lists allow. */
export function portAllowed({ allowedPorts }: NetworkPolicy, number: number): boolean {
  return allowedPorts.length === 0 || allowedPorts.includes(number);
}

const cidrs = (list: readonly string[]): Cidr[] =>
  list.map(parseCidr).filter((entry) => entry !== undefined);

/** Whether any of the ranges holds an address. */
const within = (ranges: readonly Cidr[], address: Address): boolean =>
  ranges.some((range) => contains(range, address));

/**
 * Why an address must not be the answer for a name, or be connected to for one; undefined when
 * it may. A name may lead to a protected address only where the policy allows that address
 * itself: else a name under someone else's control would reach into private networks.
 * @param hostAddresses the host's own, as CIDRs
 */
export function addressRefused(
  policy: NetworkPolicy,
  hostAddresses: readonly string[],
  text: string,
): string | undefined {
  const address = parseAddress(text);
  if (address === undefined) return "protected";
  const inner = embeddedV4(address);
  for (const each of inner === address ? [address] : [address, inner]) {
    if (within(guestRanges, each)) return "other-vm";
    if (within(cidrs(hostAddresses), each)) return "host";
    if (within(cidrs(policy.deniedCidrs), each)) return "denied-cidr";
  }
  const opened = cidrs(policy.allowedCidrs).filter((allowed) =>
    [...protectedRanges, ...dohResolvers].some((range) => contains(range, allowed)),
  );
  if (within(opened, address)) return undefined;
  if (within(protectedRanges, address) || within(protectedRanges, inner)) return "protected";
  if (policy.mode === "custom" && within(dohResolvers, address)) return "resolver";
  return undefined;
}
