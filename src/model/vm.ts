/** Virtual machines: what is asked for, what a driver is given, what is recorded. */
import type { ErrorInfo } from "./errors.ts";
import type { Digest, ImageConfig } from "./image.ts";
import type { Mount } from "./mount.ts";
import type { GuestNetwork, NetworkPolicy, PublishedPort } from "./policy.ts";
import type { Membership } from "./private-network.ts";
import type { SecretRecord } from "./secret.ts";

/** Names of the drivers; `fake` runs the agent as a process, for tests. */
export type DriverName = "firecracker" | "qemu" | "fake";

/** What executes guest instructions. */
export type Accelerator = "kvm" | "tcg" | "none";

/**
 * What is true of a VM now. `suspended`: its memory is in a file and it has no process. `error`: it
 * could not be started or died; see `error`.
 */
export type VmStatus = "creating" | "running" | "paused" | "suspended" | "stopped" | "error";

/** Why a VM stopped without being asked to. `time-limit`: its `--timeout` has passed. */
export type StopReason = "time-limit";

/** A process that outlives the one that started it, named so that it is never confused. */
export interface ProcessIdentity {
  pid: number;
  /** Field 22 of /proc/PID/stat: start time in clock ticks since boot. */
  startTime: number;
  /** /proc/sys/kernel/random/boot_id. */
  bootId: string;
}

/** What a memory image depends on: it can be loaded where all of it is the same. */
export interface MachineIdentity {
  /** Program and version, e.g. `QEMU 7.2.22`. */
  vmm: string;
  accelerator: Accelerator;
  /** Processor that guests see. */
  cpu: string;
  /** Rate of the guest's time stamp counter where it follows the host's, in kHz. */
  tscKhz?: number;
}

/** Which volume a disk is of. */
export interface VolumeOfDisk {
  name: string;
  /** By which the guest finds it. */
  label: string;
  /** The disk is a copy of the volume, and the VM's own. */
  copy?: true;
  /** In a snapshot, of a volume that is only read: what its disk was then, to be told from later states. */
  stamp?: string;
}

/** One disk of a VM, in the order vda, vdb … */
export interface DiskAttachment {
  /**
   * `base`: shared image; `upper`: the VM's own; `root`: one flat writable disk; `data`: a volume;
   * `modules`: the kernel's modules, shared.
   */
  role: "base" | "upper" | "root" | "data" | "modules";
  /** Absolute path of the image: raw, or QCOW2 when something is below it. */
  path: string;
  readonly: boolean;
  /**
   * Images below it that nobody writes to any more, the lowest (raw) first: what `path` and the
   * ones above do not have is read from there. Absolute paths.
   */
  backing?: string[];
  /** Of a volume. */
  volume?: VolumeOfDisk;
}

/** Isolation switches a user may turn off (`--no-seccomp` …). */
export interface Isolation {
  seccomp: boolean;
  pidNamespace: boolean;
  cgroup: boolean;
  networkNamespace: boolean;
}

/** What the guest's network card is attached to. */
export interface NetworkAttachment {
  /** Absolute path of the network namespace, or undefined for the host's. */
  netns?: string;
  /** Absolute path of the user namespace to enter first, in which `netns` is. */
  userns?: string;
  /** Name of the tap device in it; undefined when `socket` is used. */
  tap?: string;
  /** Absolute path of a passt-style stream socket. */
  socket?: string;
  /** Guest MAC address, `02:…`. */
  mac: string;
}

/** Everything a driver needs to start a VM: plain data, no secrets. */
export interface VmSpec {
  id: string;
  /**
   * Name on the host, which all installations share, of its control group and the like; absent:
   * its ID. A copy of a VM has another one than its original.
   */
  hostId?: string;
  /** Absolute directory of the VM's own files; sockets and console log live in it. */
  dir: string;
  vcpus: number;
  memMib: number;
  /** Absolute path of an uncompressed kernel. */
  kernel: string;
  /** Absolute path of the initramfs that holds the agent. */
  initramfs: string;
  /** Kernel arguments beyond those the driver itself needs. */
  kernelArgs: string[];
  disks: DiskAttachment[];
  network?: NetworkAttachment;
  /** There is a port for a file server, since directories of the host are shared. */
  shares?: boolean;
  isolation: Isolation;
  /** Let others have the processors first, where the driver can. */
  background?: boolean;
}

/** Who a VM runs as and in which boxes, as it really is. */
export interface IsolationReport {
  /** e.g. `jailer`, `user namespace`, `none`. */
  mode: string;
  uid: number;
  seccomp: boolean;
  pidNamespace: boolean;
  networkNamespace: boolean;
  cgroup?: string;
  /** What could not be enforced on this host, in words. */
  notEnforced: string[];
}

/** Milliseconds by phase of the last start. */
export type Timings = Record<string, number>;

/** A file that is looked at before it is trusted. */
export interface StoredFile {
  /** Name in its directory. */
  name: string;
  /** Apparent size in bytes. */
  sizeBytes: number;
  /** SHA-256, of files small enough to be read each time. */
  sha256?: string;
}

/** What is stored for each VM, one JSON document a VM. */
export interface VmRecord {
  /** Version of this document. */
  schema: 1;
  id: string;
  name?: string;
  createdAt: string;
  status: VmStatus;
  error?: ErrorInfo;
  image?: { name: string; digest: Digest; config: ImageConfig };
  /** Name of the runtime, when the image was chosen by one. */
  runtime?: string;
  labels: Record<string, string>;
  project: string;
  driver: DriverName;
  accelerator: Accelerator;
  /** Why this driver and accelerator were chosen. */
  driverReason: string;
  /** The kernel that the user asked for; absent: whichever is selected at each start. */
  kernelFile?: string;
  spec: VmSpec;
  diskSizeBytes: number;
  /** What the user wants mounted besides; absent: nothing. */
  mounts?: Mount[];
  /** Settings of /proc/sys by path, set at each boot. */
  sysctls?: Record<string, string>;
  /** Milliseconds that a boot may take; absent: what the host and its accelerator need. */
  bootTimeoutMs?: number;
  /** Whether it starts from what has booted already, if there is such; absent: where that is faster. */
  warm?: boolean;
  /** Defaults for every command, over the image's own. */
  defaults: { env: string[]; user?: string; workdir?: string };
  policy: NetworkPolicy;
  guestNetwork?: GuestNetwork;
  /** Why the network is not what the policy promises: no card, or less than all of it. */
  networkReason?: string;
  ports: PublishedPort[];
  /** Private networks that it is in; absent: none. */
  networks?: Membership[];
  /** What it uses without seeing it; the values are in a file of their own. Absent: nothing. */
  secrets?: SecretRecord;
  /** {@link networks} have changed, and what runs of the VM may not know yet. */
  placing?: boolean;
  process?: ProcessIdentity;
  /** A start of the stopped VM is under way: whoever finds this has to clean up after it. */
  starting?: boolean;
  isolation?: IsolationReport;
  startedAt?: string;
  /** When the VM is stopped by itself. */
  timeoutAt?: string;
  timeoutMs?: number;
  /** What happens at {@link timeoutAt}; absent: it is stopped. */
  onTimeout?: EndAction;
  /** What happens after that many milliseconds in which nobody and nothing used it. */
  idle?: { ms: number; action: EndAction };
  /** Set from the moment the VM is being stopped for it until the next start. */
  stopReason?: StopReason;
  /** Removed as soon as its owner is gone (`run`). */
  ephemeral: boolean;
  /** /etc/machine-id of the guest, 32 hex digits; absent: the image's own. */
  machineId?: string;
  /** Snapshot that it was made from or last went back to. */
  snapshot?: string;
  /**
   * A change of the running VM that a daemon may have been killed in: its guest's work is frozen
   * and perhaps its processors halted. The next daemon lets it go on.
   */
  held?: boolean;
  /** While it sleeps, and until it has been mended: where its memory is, and what that depends on. */
  suspended?: {
    at: string;
    /** Name of the directory with its memory in the VM's own. */
    dir: string;
    files: StoredFile[];
    machine: MachineIdentity;
    reason: RestoreReason;
    /** Boot of the host in which they were written, until they are known to be on its disk. */
    bootId?: string;
  };
  /** What must be mended in the guest before its work goes on (it came out of a file). */
  mending?: RestoreReason;
  timings: Timings;
}

/** What is done with a VM whose time is over, or that nobody uses. */
export type EndAction = "suspend" | "stop" | "remove";

/** Why a guest's memory came from a file. */
export type RestoreReason = "clone" | "restore" | "resume";
