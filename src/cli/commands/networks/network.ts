/**
 * `vmsan network`: a new policy for a running VM, or the log of its decisions; and, by their own
 * words, private networks.
 */
import type { Command } from "commander";
import { VmsanError } from "../../../model/errors.ts";
import { command, runs } from "../../command.ts";
import { addPolicyFlags, policyOptions } from "../../policy-flags.ts";
import { privateNetworkCommands } from "./private.ts";
import type { PolicyFlags } from "../../policy-flags.ts";

interface Flags extends PolicyFlags {
  log?: boolean;
  follow?: boolean;
}

/** The definition. */
export function networkCommand(): Command {
  const target = addPolicyFlags(
    command("network <vm>", "what a VM may reach, what it tried, and private networks of VMs"),
  )
    .option("--log", "print the decisions instead: what was allowed and denied, by which rule")
    .option("-f, --follow", "with --log: go on as more come");
  for (const child of privateNetworkCommands()) target.addCommand(child);
  return runs<Flags>(target, async ({ flags, output, vmsan }, ref: string) => {
    if (flags.log === true) {
      const vm = await (await vmsan()).get(ref);
      const { showDecisions } = await import("../../session/logs.ts");
      return await showDecisions(vm, flags.follow === true, output);
    }
    const wanted = policyOptions(flags);
    if (Object.keys(wanted).length === 0) {
      const { view } = await (await vmsan()).get(ref);
      output.result({ vmId: view.id, policy: view.policy }, JSON.stringify(view.policy, null, 2));
      return 0;
    }
    // A policy is replaced as a whole: `--allow-icmp` alone must not open a closed VM.
    const { networkPolicy, allowedDomains, allowedCidrs, deniedCidrs } = wanted;
    if ([networkPolicy, allowedDomains, allowedCidrs, deniedCidrs].every((x) => x === undefined)) {
      throw new VmsanError({
        code: "ERR_VALIDATION_FLAGS",
        message: `Cannot change the network policy of ${ref}`,
        why: "A new policy replaces the old one as a whole, and none is named.",
        fix: "Add --network-policy allow-all, deny-all or custom, or a list.",
      });
    }
    const { policyOf } = await import("../../../client/options.ts");
    const policy = policyOf(wanted);
    const vm = await (await vmsan()).get(ref);
    await vm.setPolicy(policy);
    output.result({ vmId: vm.id, policy: vm.view.policy }, `${vm.id}: ${vm.view.policy.mode}`);
    return 0;
  });
}
