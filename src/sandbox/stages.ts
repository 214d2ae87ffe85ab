/**
 * sandbox/: the only place that sees all stages. Takes a CreateRequest, gives a running VM
 * with a channel to its agent; owns each VM's life and its clean-up. Rooms: records/ (what is known
 * of each VM), starting/ (from a request to a guest that answers), snapshots/.
 *
 * stages.ts: what the composer needs of the stages, as narrow as it uses them. The real ones
 * are joined in host.ts; tests put the fake driver and prepared disks here.
 */
import type { AgentChannel } from "../agent/channel.ts";
import type { CreateRequest, HostWishes } from "../model/api.ts";
import type { ImageConfig } from "../model/image.ts";
import type { GuestNetwork, NetworkPolicy, PublishedPort } from "../model/policy.ts";
import type { Membership } from "../model/private-network.ts";
import type { VmSecrets } from "../model/secret.ts";
import type { ProgressSink } from "../model/progress.ts";
import type { Mount } from "../model/mount.ts";
import type { Accelerator, DriverName, NetworkAttachment, VmRecord } from "../model/vm.ts";
import type { Peer } from "../network/private/names.ts";
import type { PrivateNetworkStore } from "../network/private/store.ts";
import type { VolumeStore } from "../volumes/store.ts";
import type { CleanupReport, Driver, RunningVm } from "../vmm/driver.ts";
import type { Admission } from "./starting/admission.ts";

/** What is on a VM's disk, ready to be attached. */
export interface PreparedBase {
  image?: { name: string; digest: `sha256:${string}`; config: ImageConfig };
  runtime?: string;
  /** Absolute path of the ext4 image. */
  rootfs: string;
}

/** What boots. */
export interface BootFiles {
  kernel: string;
  initramfs: string;
  /** Read-only disk of the kernel's modules, where it has one. */
  modulesDisk?: string;
}

/** Which driver runs a VM, and why. */
export interface DriverChoice {
  driver: Driver;
  accelerator: Accelerator;
  reason: string;
}

/** Context of long work. */
export interface Work {
  signal: AbortSignal;
  progress: ProgressSink;
  /** What the caller knows of the host. */
  host?: HostWishes;
}

/** Networks of VMs; a network of its own for each. */
export interface Networks {
  /** Neither attachment nor guest: no card. `reason`: why it is not all that was asked for. */
  attach(
    vmId: string,
    policy: NetworkPolicy,
    ports: PublishedPort[],
    signal: AbortSignal,
    networks: readonly Membership[],
  ): Promise<{ attachment?: NetworkAttachment; guest?: GuestNetwork; reason?: string }>;
  /**
   * After a daemon's restart: serve the network of a VM that still runs. Never throws.
   * @returns why it is not served in full; undefined when it is
   */
  resume(
    vmId: string,
    policy: NetworkPolicy,
    ports: PublishedPort[],
    networks: readonly Membership[],
  ): Promise<string | undefined>;
  /**
   * Who is told of everything that arrives at published ports, before it is handed on, and says since when the VM has
   * been up, in milliseconds since the epoch; undefined while it boots.
   */
  onArrival(call: (vmId: string) => Promise<number | undefined>): void;
  /** Who is asked for the members of a VM's private networks. */
  onPeers(call: (vmId: string) => readonly Peer[]): void;
  /** Who is asked for a VM's secrets. */
  onSecrets(call: (vmId: string) => Promise<VmSecrets | undefined>): void;
  /** See to it that a VM is in these private networks and no others, but for its guest. */
  place(vmId: string, networks: readonly Membership[]): Promise<void>;
  /** End the connections between a VM and this host, which its guest knows nothing of any more. */
  cut(vmId: string): void;
  /** Whether the VM's network is there. */
  isUp(vmId: string): boolean;
  update(vmId: string, policy: NetworkPolicy): Promise<void>;
  detach(vmId: string): Promise<CleanupReport>;
  /** The VM is a copy: what is noted of its network is its original's, and left alone. */
  forget(vmId: string): Promise<void>;
  sweep(live: ReadonlySet<string>): Promise<CleanupReport>;
}

/** Directories and files of the host in guests. */
export interface Shares {
  /** The same mounts, with what is found out of their sources. @throws ERR_MOUNT_SOURCE when one cannot be shared */
  check(mounts: readonly Mount[]): Promise<Mount[]>;
  /** Serve a running VM's directories until its end, by the server that there is or a new one. */
  serve(record: VmRecord, running: RunningVm, token: string): Promise<void>;
  end(record: VmRecord): Promise<void>;
  /** The file in which a VM's file server keeps what it knows when it is held; undefined: it has none. */
  known(record: VmRecord): string | undefined;
  /** Have a VM's next file server go on from such a file, of another time or of another VM. */
  takeUp(record: VmRecord, from: string): Promise<void>;
}

/** Everything the composer calls. */
export interface Stages {
  /** Image, runtime or rootfs → disk image; the image's lease is held until released. */
  prepareBase(request: CreateRequest, vmId: string, work: Work): Promise<PreparedBase>;
  /** Keep the image of one VM or snapshot for another one too. */
  shareBase(from: string, to: string): Promise<void>;
  /** Forget that a VM or a snapshot uses its image. */
  releaseBase(vmId: string): Promise<void>;
  bootFiles(kernel: string | undefined, work: Work): Promise<BootFiles>;
  chooseDriver(requested: DriverName | "auto", host?: HostWishes): Promise<DriverChoice>;
  driver(name: DriverName): Driver;
  /** The VM's own writable disk. */
  createUpper(path: string, sizeBytes: number): Promise<void>;
  /** A writable clone of a base image, grown to the size. */
  cloneRoot(from: string, to: string, sizeBytes: number, signal: AbortSignal): Promise<void>;
  networks: Networks;
  volumes: VolumeStore;
  privateNetworks: PrivateNetworkStore;
  shares: Shares;
  /** Remove what no VM of these uses: half-made disks, networks, VMMs and their boxes. */
  sweep(live: ReadonlySet<string>): Promise<CleanupReport>;
  openChannel(running: RunningVm, token: string): AgentChannel;
  /** The queue before VMs that are emulated. */
  admission: Admission;
  /** Longest time from the VMM's start to the agent's first answer, in milliseconds. */
  bootLimitMs(accelerator: Accelerator): number;
}
