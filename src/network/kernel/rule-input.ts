/** What a VM's rules are made of. */
import type { NetworkPolicy } from "../../model/policy.ts";
import type { Plan } from "./address.ts";
import type { RuleLink } from "./private-rules.ts";

/** Port of the transparent proxy inside the VM's namespace, on its loopback. */
export const proxyPort = 15_080;

/** Packet mark of what goes to the proxy; the namespace's policy routing delivers it locally. */
export const proxyMark = 1;

/** An address of an allowed name. */
export interface NameAddress {
  address: string;
  /** Seconds left. */
  seconds: number;
}

/** What the rules depend on besides the policy. */
export interface RuleInput {
  policy: NetworkPolicy;
  plan: Plan;
  /** Counts up with every change of policy; at least 1. */
  generation: number;
  /** Whether the guest has an IPv6 address. */
  ipv6: boolean;
  /** The host's own addresses, as /32 and /128. */
  hostAddresses: readonly string[];
  /** Addresses of names that this policy allows. */
  names: readonly NameAddress[];
  /** Addresses that such names had earlier: connections to them go on, new ones do not. */
  heldNames: readonly string[];
  /** Ways into private networks. */
  links: readonly RuleLink[];
  /** Where the VM's secrets may go; absent: it has none. */
  secrets?: SecretTargets | undefined;
}

/** Servers that secrets are for: connections to them pass the proxy under any policy. */
export interface SecretTargets {
  ports: readonly number[];
  addresses: readonly NameAddress[];
}

/** Families of addresses. */
export type Family = 4 | 6;
