/** Gateways: who may use them, and how much. */

/** Bounds of one key; what is absent is not bounded. */
export interface KeyLimits {
  /** VMs that exist at once, stopped ones too. */
  vms?: number;
  /** MiB of memory of all its VMs. */
  memMib?: number;
  /** Bytes of the disks of all its VMs, as the guests see them. */
  diskBytes?: number;
  /** Requests a second, averaged over ten. */
  requestsPerSecond?: number;
}

/** What is known of an API key; never its text. */
export interface GatewayKey {
  /** 8 hex digits. */
  id: string;
  /** For people. */
  name: string;
  /** The project whose VMs it sees and makes. */
  project: string;
  /** Sees all projects; images and kernels are its to change. */
  admin: boolean;
  /** RFC 3339. */
  createdAt: string;
  /** RFC 3339; never when absent. */
  expiresAt?: string;
  limits: KeyLimits;
}
