/** A network policy as the form's fields, and back. */
import type { NetworkPolicy } from "../../model/policy.ts";
import { requestOf } from "./create-fields.ts";
import { NETWORK } from "./create-network.ts";
import type { Field, Wishes } from "./field.ts";

/** The form's fields about what a guest may reach. */
export const policyFields: readonly Field[] = NETWORK.fields.filter(
  ({ policy }) => policy === true,
);

/** What the fields say of a policy. */
export function wishesOf(policy: NetworkPolicy): Wishes {
  const { bandwidthMbit } = policy;
  return {
    policy: policy.mode,
    domains: policy.allowedDomains.join("\n"),
    cidrs: policy.allowedCidrs.join("\n"),
    denied: policy.deniedCidrs.join("\n"),
    allowedPorts: policy.allowedPorts.join(", "),
    hostPorts: policy.allowHostPorts.join(", "),
    udp: policy.allowUdp ? "yes" : "",
    icmp: policy.allowIcmp ? "yes" : "",
    bandwidth: bandwidthMbit === undefined ? "" : String(bandwidthMbit),
  };
}

/** The policy that the fields amount to. @param old what it had that this key may not say */
export function policyOf(wishes: Wishes, old: NetworkPolicy, admin: boolean): object {
  const { policy } = requestOf(wishes, admin);
  return admin ? policy : { ...policy, allowHostPorts: old.allowHostPorts };
}
