/** The flags that say what a guest may reach: shared by `create`, `run` and `network`. */
import type { Command } from "commander";
import type { NetworkOptions } from "../client/options.ts";
import { collectList } from "./command.ts";

/** What commander makes of the flags below. */
export interface PolicyFlags {
  networkPolicy?: string;
  allowedDomain?: string[];
  allowedCidr?: string[];
  deniedCidr?: string[];
  allowedPort?: string[];
  allowHostPort?: string[];
  allowIcmp?: boolean;
  allowUdp?: boolean;
  bandwidth?: string;
}

/** Add the flags of a network policy. */
export function addPolicyFlags(target: Command): Command {
  return target
    .option("--network-policy <policy>", "allow-all, deny-all, custom or none")
    .option(
      "--allowed-domain <list>",
      "names the guest may reach; *.name for all below",
      collectList,
    )
    .option("--allowed-cidr <list>", "addresses the guest may reach", collectList)
    .option("--denied-cidr <list>", "addresses the guest may not reach; wins", collectList)
    .option("--allowed-port <list>", "only these ports of what the lists allow", collectList)
    .option("--allow-host-port <list>", "TCP ports of this host the guest may reach", collectList)
    .option("--allow-icmp", "let ICMP echo through")
    .option("--allow-udp", "let UDP other than DNS through")
    .option("--bandwidth <rate>", "both directions: 50mbit");
}

/** The SDK's names for what the flags say; what was not given is absent. */
export function policyOptions(flags: PolicyFlags): NetworkOptions {
  const given = {
    networkPolicy: flags.networkPolicy,
    allowedDomains: flags.allowedDomain,
    allowedCidrs: flags.allowedCidr,
    deniedCidrs: flags.deniedCidr,
    allowedPorts: flags.allowedPort,
    allowHostPorts: flags.allowHostPort,
    allowIcmp: flags.allowIcmp,
    allowUdp: flags.allowUdp,
    bandwidth: flags.bandwidth,
  };
  return Object.fromEntries(
    Object.entries(given).filter(([, value]) => value !== undefined),
  ) as NetworkOptions;
}
