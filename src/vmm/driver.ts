/**
 * vmm/: what runs a VM. Takes a VmSpec, gives a RunningVm with a byte stream to
 * the agent in it. One folder a driver; all of them pass the suite in contract.ts.
 * A driver implements the few methods below; waiting for the agent, time limits
 * and clean-up of the VM's directory are derived from them by sandbox/.
 */
import type { Duplex } from "node:stream";
import type {
  Accelerator,
  DriverName,
  IsolationReport,
  ProcessIdentity,
  VmSpec,
  MachineIdentity,
} from "../model/vm.ts";

/** What a driver says of itself on this host. */
export interface DriverProbe {
  usable: boolean;
  accelerator: Accelerator;
  /** Why this accelerator, or why not usable; one sentence. */
  reason: string;
  /** What to do about it when not usable. */
  fix?: string;
  /** Version of the VMM binary. */
  version?: string;
}

/** What a caller of a probe knows better. */
export interface ProbeWishes {
  /** KVM works: it need not be tried (a driver that can do without it tries all the same). */
  assumeKvm?: boolean;
}

/** What a driver can do beyond the basics. */
export interface DriverCapabilities {
  snapshots: boolean;
  diffSnapshots: boolean;
  /** Disks may have layers below them, and get another one while the VM runs. */
  diskLayers: boolean;
  /** Disks may become larger while the VM runs. */
  diskGrowth: boolean;
  /** Many streams to the guest at once (vsock), or one (virtio-serial). */
  multipleStreams: boolean;
  /** Isolation switches it can turn off; others are refused with a reason. */
  isolation: readonly ("seccomp" | "pidNamespace" | "cgroup" | "networkNamespace")[];
}

/** How a VMM process ended. */
export interface VmmExit {
  code: number | null;
  signal: string | null;
}

/** Where a snapshot's parts are written; absolute paths that do not exist yet. */
export interface SnapshotFiles {
  state: string;
  memory: string;
}

/** Where a file server reaches the guest; see shares/. */
export interface FileServerPort {
  /** Absolute path of a unix socket. */
  socket: string;
  /** What is asked for first on it (`CONNECT N`), where it leads to several ports. */
  vsockPort?: number;
}

/** A VM whose VMM process runs. */
export interface RunningVm {
  readonly process: ProcessIdentity;
  /** A port of its own for shared directories; absent where there can be none. */
  readonly fileServerPort?: FileServerPort;
  readonly isolation: IsolationReport;
  /**
   * One raw byte stream to the agent. May be called before the guest has booted: it then
   * waits. Ends by `signal` or when the VMM is gone (ERR_VM_NOT_RUNNING).
   */
  connect(signal: AbortSignal): Promise<Duplex>;
  pause(): Promise<void>;
  resume(): Promise<void>;
  /**
   * Let the guest go on if the VMM holds it because a write to a disk found no room on the host; the write is made
   * again. Absent where the guest is told of such an error instead.
   * @returns whether it was held
   */
  retryWrites?(): Promise<boolean>;
  /** The VM must be paused. Disks are not included. */
  snapshot(files: SnapshotFiles, kind: "full" | "diff"): Promise<void>;
  /**
   * Have a disk write to another layer from now on; the one that it wrote to is not written any
   * more. Before {@link snapshot}, not after it. Nothing is done where it writes there already.
   * @param index of the disk in the specification
   * @param path empty layer of the disk's size, as snapshots/qcow2.ts makes it
   */
  addLayer(index: number, path: string): Promise<void>;
  /**
   * Make a disk larger; the guest learns of it by itself.
   * @param index of the disk in the specification
   */
  growDisk(index: number, sizeBytes: number): Promise<void>;
  /** Resolves when the VMM process is gone, for whatever reason. */
  readonly exited: Promise<VmmExit>;
  /** Kill the VMM at once and wait until it is gone. Never throws for a dead one. */
  kill(): Promise<void>;
}

/** What a driver's clean-up found and could not do. */
export interface CleanupReport {
  removed: string[];
  failed: { what: string; why: string }[];
}

/** Starts VMs and finds them again. */
export interface Driver {
  readonly name: DriverName;
  readonly capabilities: DriverCapabilities;
  /** Whether and how VMs run here; cached by the driver, bounded in time. */
  probe(wishes?: ProbeWishes): Promise<DriverProbe>;
  /**
   * Start the VMM with this specification. Resolves once its process runs and its control
   * socket answers, not when the guest is up. On failure or abort nothing is left.
   */
  start(spec: VmSpec, signal: AbortSignal): Promise<RunningVm>;
  /** Start from a snapshot; the VM is paused on return. */
  restore(spec: VmSpec, from: SnapshotFiles, signal: AbortSignal): Promise<RunningVm>;
  /** What snapshots made now depend on. */
  machine(): Promise<MachineIdentity>;
  /** Take hold of a VM that an earlier daemon started; undefined when it no longer runs. */
  adopt(spec: VmSpec, process: ProcessIdentity): Promise<RunningVm | undefined>;
  /** Remove whatever a dead VM of this driver left behind (sockets, jails, cgroups). */
  cleanup(spec: VmSpec): Promise<CleanupReport>;
  /** Path of the file with the guest's console output. */
  consolePath(spec: VmSpec): string;
}
