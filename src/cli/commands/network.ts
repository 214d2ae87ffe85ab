/** `vmsan network`: a new policy for a running VM, or the log of its decisions. */
import type { Command } from "commander";
import { policyOf } from "../../client/options.ts";
import { collectList, command, runs } from "../command.ts";

interface Flags {
  networkPolicy?: string;
  allowedDomain?: string[];
  allowedCidr?: string[];
  deniedCidr?: string[];
  allowHostPort?: string[];
  allowIcmp?: boolean;
  allowUdp?: boolean;
  bandwidth?: string;
  log?: boolean;
  follow?: boolean;
}

/** The definition. */
export function networkCommand(): Command {
  const target = command("network <vm>", "change what a VM may reach, or show what it tried")
    .option("--network-policy <policy>", "allow-all, deny-all or custom")
    .option(
      "--allowed-domain <list>",
      "names the guest may reach; *.name for all below",
      collectList,
    )
    .option("--allowed-cidr <list>", "addresses the guest may reach", collectList)
    .option("--denied-cidr <list>", "addresses the guest may not reach; wins", collectList)
    .option("--allow-host-port <list>", "TCP ports of this host the guest may reach", collectList)
    .option("--allow-icmp", "let ICMP echo through")
    .option("--allow-udp", "let UDP other than DNS through")
    .option("--bandwidth <rate>", "both directions: 50mbit")
    .option("--log", "print the decisions instead: what was allowed and denied, by which rule")
    .option("-f, --follow", "with --log: go on as more come");
  return runs<Flags>(target, async ({ flags, output, vmsan }, ref: string) => {
    const vm = await (await vmsan()).get(ref);
    if (flags.log === true) {
      const { showDecisions } = await import("../logs-session.ts");
      return await showDecisions(vm, flags.follow === true, output);
    }
    const {
      log: _log,
      follow: _follow,
      allowedDomain,
      allowedCidr,
      deniedCidr,
      allowHostPort,
      ...rest
    } = flags;
    const policy = policyOf({
      ...rest,
      ...(allowedDomain === undefined ? {} : { allowedDomains: allowedDomain }),
      ...(allowedCidr === undefined ? {} : { allowedCidrs: allowedCidr }),
      ...(deniedCidr === undefined ? {} : { deniedCidrs: deniedCidr }),
      ...(allowHostPort === undefined ? {} : { allowHostPorts: allowHostPort }),
    });
    await vm.setPolicy(policy);
    output.result({ vmId: vm.id, policy: vm.view.policy }, `${vm.id}: ${vm.view.policy.mode}`);
    return 0;
  });
}
