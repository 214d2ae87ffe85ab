/** The networks of VMs, as the composer uses them: made where the host allows it. */
import { createNetworkManager } from "../network/network.ts";
import type { Peer } from "../network/private/names.ts";
import type { NetworkDecision, NetworkManager, NetworkProbe } from "../network/types.ts";
import { VmsanError, asVmsanError } from "../model/errors.ts";
import type { NetworkPolicy, PublishedPort } from "../model/policy.ts";
import type { Membership } from "../model/private-network.ts";
import type { VmSecrets } from "../model/secret.ts";
import { networkHelperBinary } from "../util/package.ts";
import type { Layout } from "../util/paths.ts";
import type { EventLog } from "./records/entry.ts";
import type { Networks } from "./stages.ts";

/** {@link Networks} with the log of decisions. */
export interface HostNetworks extends Networks {
  probe(): Promise<NetworkProbe>;
  /** Another one who is told of each decision as it falls; must return quickly and never throw. */
  onDecision(call: (vmId: string, decision: NetworkDecision) => void): void;
  decisions(vmId: string): NetworkDecision[];
  follow(vmId: string, signal: AbortSignal): AsyncIterable<NetworkDecision>;
  close(): Promise<void>;
}

/** Whether the caller asked for something that a VM without a card does not have. */
function needsCard(
  policy: NetworkPolicy,
  ...wanted: readonly (readonly (PublishedPort | Membership)[])[]
): boolean {
  const more = wanted.some(({ length }) => length > 0);
  return policy.mode === "custom" || policy.allowHostPorts.length > 0 || more;
}

/**
 * Networks of this host. Where it offers none, a VM with the default policy comes up without a
 * card, which is said; one whose policy asks for something to be reachable is refused.
 */
export function createNetworks(layout: Layout, log: EventLog): HostNetworks {
  const deciding: ((vmId: string, decision: NetworkDecision) => void)[] = [];
  let arrival = async (_vmId: string): Promise<number | undefined> =>
    await Promise.resolve(undefined);
  let peers = (_vmId: string): readonly Peer[] => [];
  let secrets = async (_vmId: string): Promise<VmSecrets | undefined> =>
    await Promise.resolve(undefined);
  const manager: NetworkManager = createNetworkManager({
    dir: layout.network,
    helper: networkHelperBinary(),
    onArrival: async (vmId) => await arrival(vmId),
    onDecision: (vmId, decision) => {
      for (const call of deciding) call(vmId, decision);
    },
    peers: (vmId) => peers(vmId),
    secrets: async (vmId) => await secrets(vmId),
    onWarning: (message) => log.error(`network: ${message}`),
  });
  let probed: Promise<NetworkProbe> | undefined;
  const probe = async (): Promise<NetworkProbe> => {
    probed ??= manager.probe();
    const found = await probed;
    // What is missing may be installed while we run: only success is remembered.
    if (found.mode === "none") probed = undefined;
    return found;
  };
  const nothing = { removed: [], failed: [] };
  return {
    probe,
    attach: async (vmId, policy, ports, signal, networks) => {
      const { mode, reason, fix } = await probe();
      if (mode === "none") {
        if (needsCard(policy, ports, networks)) {
          throw new VmsanError({
            code: "ERR_NETWORK_UNAVAILABLE",
            message: `Cannot make the network of ${vmId}`,
            why: reason,
            fix: fix ?? "Use --network none.",
          });
        }
        log.info(`${vmId}: no network: ${reason}`);
        return { reason: `No network card: ${reason}${fix === undefined ? "" : ` ${fix}`}` };
      }
      const made = await manager.attach(vmId, policy, ports, signal, networks);
      // With a fix even this mode is not all that it could be.
      return { ...made, ...(fix === undefined ? {} : { reason: `${reason} ${fix}` }) };
    },
    resume: async (vmId, policy, ports, networks) => {
      try {
        await manager.resume(vmId, policy, ports, networks);
        return undefined;
      } catch (error) {
        // The VM runs and is of use without: it is said, and no reason to give it up.
        const { message, why } = asVmsanError(error, `Cannot use the network of ${vmId}`);
        const reason = `${message}: ${why ?? ""}`;
        log.error(`${vmId}: ${reason}`);
        return reason;
      }
    },
    onArrival: (call) => {
      arrival = call;
    },
    onDecision: (call) => void deciding.push(call),
    onPeers: (call) => {
      peers = call;
    },
    onSecrets: (call) => {
      secrets = call;
    },
    place: (vmId, networks) => manager.place(vmId, networks),
    cut: (vmId) => manager.cut(vmId),
    isUp: (vmId) => manager.isUp(vmId),
    update: (vmId, policy) => manager.update(vmId, policy),
    detach: (vmId) => manager.detach(vmId),
    forget: (vmId) => manager.forget(vmId),
    sweep: async (live) => ((await probe()).mode === "none" ? nothing : await manager.sweep(live)),
    decisions: (vmId) => manager.decisions(vmId),
    follow: (vmId, signal) => manager.followDecisions(vmId, signal),
    close: () => manager.close(),
  };
}
