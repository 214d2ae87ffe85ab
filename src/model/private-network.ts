/** Private networks: VMs that reach each other, by name and by address. See docs/network.md. */

/** What is stored of each network. Which VMs are in it their records say. */
export interface PrivateNetworkRecord {
  /** Version of this document. */
  schema: 1;
  name: string;
  createdAt: string;
  project: string;
  labels: Record<string, string>;
  /** IPv4 CIDR that its members' addresses are of. */
  subnet: string;
}

/** A network to be made. */
export interface PrivateNetworkRequest {
  name: string;
  project: string;
  labels: Record<string, string>;
  /** Absent: the next free one. */
  subnet?: string;
}

/** A network that a VM shall be in. */
export interface MembershipRequest {
  /** The network's name. */
  network: string;
  /** Names by which its members find the VM besides its own; several VMs may share one. */
  aliases: string[];
  /** Absent: the next free one. */
  address?: string;
}

/** A VM's place in a network; it keeps it while it is stopped. */
export interface Membership {
  /** The network's name. */
  network: string;
  subnet: string;
  /** The VM's IPv4 address there. */
  address: string;
  aliases: string[];
}

/** A member as the API shows it. */
export interface MemberView {
  id: string;
  name?: string;
  address: string;
  aliases: string[];
  /** Whether it can be reached now: not while it is stopped. */
  connected: boolean;
}

/** A network as the API shows it. */
export interface PrivateNetworkView {
  name: string;
  createdAt: string;
  project: string;
  labels: Record<string, string>;
  subnet: string;
  /** VMs that are in it, also stopped ones. */
  members: MemberView[];
  /** Why it cannot be used. */
  damaged?: string;
}

/** What a prune of networks has removed. */
export interface PrivateNetworkPrune {
  networks: string[];
}
