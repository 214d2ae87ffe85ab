/** Network policy as data; see docs/network.md for what each rule means in the guest. */

/** Which of the three policies is in force. */
export type PolicyMode = "allow-all" | "deny-all" | "custom" | "none";

/** What a guest may reach. `none`: the VM has no network card at all. */
export interface NetworkPolicy {
  mode: PolicyMode;
  /** Lower-case names; `*.` first means every name below. */
  allowedDomains: string[];
  /** IPv4 and IPv6 CIDRs. */
  allowedCidrs: string[];
  /** Wins over everything allowed. */
  deniedCidrs: string[];
  /** Ports of what the lists allow, under `custom`; empty: every port. */
  allowedPorts: number[];
  /** TCP ports of the host itself that the guest may reach. */
  allowHostPorts: number[];
  allowIcmp: boolean;
  /** UDP other than DNS under `custom`. */
  allowUdp: boolean;
  /** Both directions, in megabits a second; undefined: unlimited. */
  bandwidthMbit?: number;
}

/** The policy under which nothing comes in or goes out. @param mode `none`: by having no network card at all */
export function closedPolicy(mode: "none" | "deny-all"): NetworkPolicy {
  return {
    mode,
    allowedDomains: [],
    allowedCidrs: [],
    deniedCidrs: [],
    allowedPorts: [],
    allowHostPorts: [],
    allowIcmp: false,
    allowUdp: false,
  };
}

/** A port of the host that reaches a port of the guest. */
export interface PublishedPort {
  protocol: "tcp" | "udp";
  /** Host address to listen on; 127.0.0.1 unless asked otherwise. */
  hostAddress: string;
  hostPort: number;
  guestPort: number;
}

/** What the guest is told about its network. */
export interface GuestNetwork {
  mac: string;
  /** Address with prefix length, e.g. `198.19.0.2/30`. */
  ipv4?: string;
  gateway4?: string;
  ipv6?: string;
  gateway6?: string;
  dns: string[];
  mtu: number;
}
