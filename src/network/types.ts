/** What the rest of vmsan sees of network/. */
import type { NetworkPolicy, GuestNetwork, PublishedPort } from "../model/policy.ts";
import type { VmSecrets } from "../model/secret.ts";
import type { NetworkAttachment } from "../model/vm.ts";
import type { Peer } from "./private/names.ts";
import type { Wanted } from "./private/nets.ts";

/** What this host offers, and why. */
export interface NetworkProbe {
  mode: "root" | "rootless" | "none";
  /** One sentence. */
  reason: string;
  /** What to do about it when the mode is not the best one. */
  fix?: string;
}

/** How to start a program inside a VM's namespaces, beyond the plain attachment. */
export interface NetworkEntry extends NetworkAttachment {
  /**
   * Arguments to put before the VMM's own so that it starts where the tap is, e.g.
   * `["nsenter", "--net=/run/netns/vmsan-vm-0123abcd", "--"]`.
   */
  enter: string[];
}

/** A VM's network, ready for the VMM and for the guest. */
export interface AttachedNetwork {
  attachment: NetworkEntry;
  guest: GuestNetwork;
}

/** What a clean-up removed and what it could not remove. */
export interface NetworkCleanup {
  removed: string[];
  failed: { what: string; why: string }[];
}

/** One line of the decision log: something the guest tried, and what became of it. */
export interface NetworkDecision {
  /** Counts up by one for each VM; gaps mean that the bounded log dropped lines. */
  seq: number;
  /** ISO 8601 time. */
  time: string;
  verdict: "allowed" | "denied";
  /** `dns`: a name was asked for; others: a connection or packet. */
  protocol: "dns" | "tcp" | "udp" | "icmp" | "other";
  /** Name asked for, or named by TLS or HTTP, where known. */
  name?: string;
  /** Destination. */
  address?: string;
  port?: number;
  /** Which rule decided: `allowed-domain`, `denied-cidr`, `protected`, `default-deny` … */
  rule: string;
}

/** Makes, changes and removes VMs' networks; one for each daemon. */
export interface NetworkManager {
  /** What this host offers; bounded in time, no lasting effect on the host. */
  probe(): Promise<NetworkProbe>;
  /**
   * Make the VM's network and start serving it (DNS, proxy, published ports); all or
   * nothing. Undefined under the policy `none`. Throws ERR_VALIDATION_PORT_CONFLICT when a port is taken, ERR_NETWORK_* when
   * the host refuses something.
   * @param networks private networks that it is in from the beginning
   */
  attach(
    vmId: string,
    policy: NetworkPolicy,
    ports: readonly PublishedPort[],
    signal: AbortSignal,
    networks?: readonly Wanted[],
  ): Promise<AttachedNetwork | undefined>;
  /** Put a new policy in force on a running VM, atomically; connections it forbids are cut. */
  update(vmId: string, policy: NetworkPolicy): Promise<void>;
  /**
   * See to it that a VM is in these private networks and no others, as far as the host goes: its
   * guest has to be told (`routes` and addresses of its configuration). Throws ERR_NETWORK_LOST.
   */
  place(vmId: string, networks: readonly Wanted[]): Promise<void>;
  /**
   * After a daemon restart: serve again (DNS, proxy, ports) a VM that still runs, with the
   * given policy, in these private networks. Throws ERR_NETWORK_LOST when its network is gone.
   */
  resume(
    vmId: string,
    policy: NetworkPolicy,
    ports: readonly PublishedPort[],
    networks?: readonly Wanted[],
  ): Promise<void>;
  /** End the connections between a VM and this host, which its guest knows nothing of any more. */
  cut(vmId: string): void;
  /** Whether a VM's network is there: made, and not removed since (by a reboot, say). */
  isUp(vmId: string): boolean;
  /** Remove the VM's network, in use or not; a second call finds nothing and is no error. */
  detach(vmId: string): Promise<NetworkCleanup>;
  /**
   * The VM is a copy, and the network that is noted for it is its original's: note none for it.
   * Nothing is removed.
   */
  forget(vmId: string): Promise<void>;
  /** Remove the networks of all VMs of this installation that are not in `live`. */
  sweep(live: ReadonlySet<string>): Promise<NetworkCleanup>;
  /** Lines of the bounded decision log after number `since`, oldest first. */
  decisions(vmId: string, since?: number): NetworkDecision[];
  /** Follow the decision log from now on; ends when the VM's network goes or on abort. */
  followDecisions(vmId: string, signal: AbortSignal): AsyncIterable<NetworkDecision>;
  /** Stop serving everything; the VMs' networks stay as they are (closed for names). */
  close(): Promise<void>;
}

/** What {@link NetworkManager} needs from its surroundings. */
export interface NetworkOptions {
  /** Directory of the leases; made if missing. */
  dir: string;
  /** Path of the `vmsan-nethelper` binary. */
  helper: string;
  /** Name servers to ask, `address` or `address#port`; default: the host's own. */
  upstreams?: string[];
  /** IPv6 in the guests; default: when the host has an IPv6 default route. */
  ipv6?: boolean;
  /** Told of everything that arrives at a VM's published ports; it is handed on when that resolves. See `GuestSide.arrival`. */
  onArrival?: (vmId: string) => Promise<number | undefined>;
  /** Told of each decision as it falls; returns quickly and never throws. */
  onDecision?: (vmId: string, decision: NetworkDecision) => void;
  /** Who is in a VM's private networks, the VM included, at the moment of a question. */
  peers?: (vmId: string) => readonly Peer[];
  /** A VM's secrets; asked when its network is made or taken up. */
  secrets?: (vmId: string) => Promise<VmSecrets | undefined>;
  /** Receives what goes wrong in the background (one sentence each). */
  onWarning?: (message: string) => void;
}
