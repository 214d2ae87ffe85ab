/** The networks of VMs, as the composer uses them: made where the host allows it. */
import { createNetworkManager } from "../network/network.ts";
import type { NetworkDecision, NetworkManager, NetworkProbe } from "../network/types.ts";
import { VmsanError } from "../model/errors.ts";
import { networkHelperBinary } from "../util/package.ts";
import type { Layout } from "../util/paths.ts";
import type { EventLog } from "./sandboxes.ts";
import type { Networks } from "./stages.ts";

/** {@link Networks} with the log of decisions. */
export interface HostNetworks extends Networks {
  probe(): Promise<NetworkProbe>;
  decisions(vmId: string): NetworkDecision[];
  follow(vmId: string, signal: AbortSignal): AsyncIterable<NetworkDecision>;
  close(): Promise<void>;
}

/**
 * Networks of this host. Where it offers none, a VM with the default policy comes up without a
 * card, which is said; one whose policy asks for something to be reachable is refused.
 */
export function createNetworks(layout: Layout, log: EventLog): HostNetworks {
  const manager: NetworkManager = createNetworkManager({
    dir: layout.network,
    helper: networkHelperBinary(),
    onWarning: (message) => log.error(`network: ${message}`),
  });
  let probed: Promise<NetworkProbe> | undefined;
  const probe = (): Promise<NetworkProbe> => (probed ??= manager.probe());
  const nothing = { removed: [], failed: [] };
  return {
    probe,
    attach: async (vmId, policy, ports, signal) => {
      const { mode, reason, fix } = await probe();
      if (mode === "none") {
        if (policy.mode === "custom" || ports.length > 0) {
          throw new VmsanError({
            code: "ERR_NETWORK_UNAVAILABLE",
            message: `Cannot make the network of ${vmId}`,
            why: reason,
            fix: fix ?? "Use --network none.",
          });
        }
        log.info(`${vmId}: no network: ${reason}`);
        return undefined;
      }
      return await manager.attach(vmId, policy, ports, signal);
    },
    resume: (vmId, policy, ports) => manager.resume(vmId, policy, ports),
    update: (vmId, policy) => manager.update(vmId, policy),
    detach: (vmId) => manager.detach(vmId),
    sweep: async (live) => ((await probe()).mode === "none" ? nothing : await manager.sweep(live)),
    decisions: (vmId) => manager.decisions(vmId),
    follow: (vmId, signal) => manager.followDecisions(vmId, signal),
    close: () => manager.close(),
  };
}
