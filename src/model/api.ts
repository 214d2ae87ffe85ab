/** What the daemon is asked and what it answers: the nouns of the HTTP API and of the SDK; api/ has those of images, builds and kernels. */
import type { ErrorInfo } from "./errors.ts";
import type { ImageConfig } from "./image.ts";
import type { Mount } from "./mount.ts";
import type { GuestNetwork, NetworkPolicy, PublishedPort } from "./policy.ts";
import type { Membership, MembershipRequest } from "./private-network.ts";
import type { ProgressEvent } from "./progress.ts";
import type { SecretRequest, SecretView } from "./secret.ts";
import type { SnapshotSizes } from "./snapshot.ts";
import type {
  Accelerator,
  DriverName,
  EndAction,
  Isolation,
  IsolationReport,
  MachineIdentity,
  StopReason,
  Timings,
  VmStatus,
} from "./vm.ts";

/**
 * Request header with the version of the client. A daemon of another version does nothing for
 * such a request but answer ERR_DAEMON_VERSION (status 409).
 */
export const VERSION_HEADER = "vmsan-version";

/**
 * Request header of who attaches to a stream: milliseconds after which it gives up. Of a VM that sleeps it
 * hears before, and may ask again.
 */
export const PATIENCE_HEADER = "vmsan-patience-ms";

/**
 * Request header of who wants to know where the time goes (`1`). A reply of one JSON value says it by the same header, as a
 * {@link CallTiming} in JSON; one of lines has a line for it.
 */
export const TIMING_HEADER = "vmsan-timing";

/** Where a call's time went on the side that answered it; phases may lie within each other and side by side. */
export interface CallTiming {
  /** From the call's coming to its answer, in milliseconds. */
  ms: number;
  /** `fromMs` counts from the call's coming. */
  phases: { name: string; fromMs: number; ms: number; by?: "guest" }[];
}

/** What a {@link PATIENCE_HEADER} says; undefined when it says nothing that makes sense. */
export function patienceOf(value: string | string[] | undefined): number | undefined {
  return typeof value === "string" && /^\d{1,12}$/.test(value) ? Number(value) : undefined;
}

/** When the registry is asked although the image may be in the store. */
export type PullPolicy = "missing" | "always" | "never";

/** How registries are reached for one request: the caller's settings, not the daemon's. */
export interface RegistryAccess {
  /** Absolute path of certificates of authorities to trust besides the system's. */
  caFile?: string;
  /**
   * The caller's proxy variables and places of credentials instead of the daemon's own (see
   * util/registry-env.ts). They may hold secrets: never logged, never kept.
   */
  env?: Record<string, string>;
  /** Hosts that may have layers already. */
  peers?: BlobPeers;
}

/**
 * Other hosts that may have an image's layers, which are asked before the registry. The registry alone says which
 * layers an image has, and whether the caller may have them.
 */
export interface BlobPeers {
  /** `HOST:PORT` of each. */
  hosts: string[];
  /** PEM: who has signed their certificates, and what is shown to them. The key is never logged, never kept. */
  ca: string;
  cert: string;
  key: string;
}

/** What the caller knows of the host for one request; what is absent the daemon's environment says. */
export interface HostWishes {
  /** Use KVM without trying first whether it works (VMSAN_KVM=assume). */
  assumeKvm?: boolean;
  /** Milliseconds that a guest has to come up (VMSAN_BOOT_TIMEOUT). */
  bootTimeoutMs?: number;
}

/** How a VM is known to clients of ssh. */
export interface SshView {
  /** Its public key: `ssh-ed25519 AAAA…`. */
  hostKey: string;
}

/** A VM to be made. Exactly one of `image`, `runtime` and `rootfs` says what is in it. */
export interface CreateRequest {
  /** Image source, paths absolute: `node:22`, `oci:/dir:tag`, … */
  image?: string;
  /** Name from the catalogue of runtimes; `base` when nothing else is given. */
  runtime?: string;
  /** Absolute path of an ext4 image used as the shared base. */
  rootfs?: string;
  /** Absolute path of a kernel. */
  kernel?: string;
  name?: string;
  vcpus: number;
  memMib: number;
  diskSizeBytes: number;
  /** `overlay`: shared base and own upper disk; `flat`: one writable disk, cloned. */
  diskMode: "overlay" | "flat";
  project: string;
  labels: Record<string, string>;
  driver: DriverName | "auto";
  env: string[];
  user?: string;
  workdir?: string;
  policy: NetworkPolicy;
  ports: PublishedPort[];
  /** Private networks that it is in from the beginning. */
  networks: MembershipRequest[];
  /** What it shall use without seeing it. */
  secrets?: SecretRequest[];
  /** Milliseconds after which the VM is stopped by itself, or what `onTimeout` says. */
  timeoutMs?: number;
  onTimeout?: EndAction;
  /** Milliseconds without use after which `action` is taken. */
  idle?: { ms: number; action: EndAction };
  isolation: {
    seccomp: boolean;
    pidNamespace: boolean;
    cgroup: boolean;
    networkNamespace: boolean;
  };
  pull: PullPolicy;
  platform?: string;
  registry?: RegistryAccess;
  host?: HostWishes;
  /** Boot the image's own init; absolute path in the guest. */
  init?: string;
  /** What is mounted besides the disk; places inside others behind them. */
  mounts: Mount[];
  /** Behind vmsan's own on the kernel's command line. */
  kernelArgs: string[];
  /** Values by path below /proc/sys, set before the first command. */
  sysctls: Record<string, string>;
  /** Milliseconds that each start of it may take until its agent answers. */
  bootTimeoutMs?: number;
  /** May be a clone of a template that booted earlier, instead of booting; absent: as the daemon sees fit. */
  warm?: boolean;
  /** Removed as soon as the connection that made it, and every later holder, is gone. */
  ephemeral: boolean;
}

/** A VM to be made of a snapshot, or several alike. What is absent is as in the snapshot. */
export interface CloneRequest {
  /** How many; with more than one, `name` is followed by `-1`, `-2` … */
  count: number;
  name?: string;
  project?: string;
  labels: Record<string, string>;
  env?: string[];
  user?: string;
  workdir?: string;
  policy?: NetworkPolicy;
  /** Absent: those of the snapshot, at addresses of its own and without aliases. */
  networks?: MembershipRequest[];
  /** Never the snapshot's: they belong to the VM that it was made of. */
  secrets?: SecretRequest[];
  /** Never the snapshot's: the host's ports are taken by the VM that it was made of. */
  ports: PublishedPort[];
  timeoutMs?: number;
  onTimeout?: EndAction;
  idle?: { ms: number; action: EndAction };
  isolation: Isolation;
  ephemeral: boolean;
  /** Boot from the snapshot's disks and leave its memory alone. */
  cold: boolean;
  /** What a snapshot has fixed: refused when it is not the snapshot's own. */
  vcpus?: number;
  memMib?: number;
  diskSizeBytes?: number;
  driver?: DriverName;
  kernel?: string;
}

/** Another size for a VM; what is absent stays. */
export interface UpdateRequest {
  /** Not smaller than it is. */
  diskSizeBytes?: number;
  memMib?: number;
  vcpus?: number;
  /** In place of those that it has; whatever the VM does meanwhile. */
  labels?: Record<string, string>;
}

/** A snapshot to be made. */
export interface SnapshotRequest {
  name?: string;
  /** False: of the disk alone. */
  memory: boolean;
  /** False: the VM is left paused. */
  resume: boolean;
}

/** What a prune of snapshots has removed. */
export interface SnapshotPrune {
  snapshots: string[];
  freedBytes: number;
}

/** Something that needs a kernel, a disk image and an image of the store: a VM or a snapshot. */
export interface ResourceUser {
  id: string;
  name?: string;
  /** Absolute path of its kernel. */
  kernel: string;
  /** Absolute path of its shared disk. */
  rootfs: string;
  image?: { digest: string };
}

/** A snapshot as the API shows it. */
export interface SnapshotView {
  id: string;
  name?: string;
  createdAt: string;
  parent?: string;
  vm: { id: string; name?: string };
  /** Whose it is; absent: only the host's own user and admin keys know of it. */
  project?: string;
  memory: boolean;
  image?: { name: string; digest: string };
  runtime?: string;
  driver: DriverName;
  machine: MachineIdentity;
  kernel: string;
  vcpus: number;
  memMib: number;
  diskSizeBytes: number;
  policy: NetworkPolicy;
  /** Names of the private networks that VMs made of it are in, unless they ask for others. */
  networks?: string[];
  /** Bytes. */
  sizes: SnapshotSizes;
  /** Milliseconds that the VM stood still for it. */
  pauseMs: number;
  /** Names of VMs that were made from it or went back to it. */
  usedBy: string[];
}

/** A VM as the API shows it. */
export interface VmView {
  id: string;
  name?: string;
  status: VmStatus;
  error?: ErrorInfo;
  createdAt: string;
  startedAt?: string;
  timeoutAt?: string;
  /** Milliseconds from a start (or an extension) to {@link timeoutAt}. */
  timeoutMs?: number;
  onTimeout?: EndAction;
  idle?: { ms: number; action: EndAction };
  stopReason?: StopReason;
  image?: { name: string; digest: string; config: ImageConfig };
  runtime?: string;
  project: string;
  labels: Record<string, string>;
  driver: DriverName;
  accelerator: Accelerator;
  driverReason: string;
  pid?: number;
  vcpus: number;
  memMib: number;
  diskSizeBytes: number;
  kernel: string;
  rootfs: string;
  /** What the user wants mounted besides its disk. */
  mounts: Mount[];
  /** The user's, on the kernel's command line. */
  kernelArgs: string[];
  /** Values by path below /proc/sys. */
  sysctls: Record<string, string>;
  bootTimeoutMs?: number;
  /** For every command; the placeholders of secrets included. */
  defaults: { env: string[]; user?: string; workdir?: string };
  policy: NetworkPolicy;
  /** What it uses without seeing it. */
  secrets: SecretView[];
  ports: PublishedPort[];
  /** Private networks that it is in. */
  networks: Membership[];
  guestNetwork?: GuestNetwork;
  /** Why the network is not what the policy promises: no card, or less than all of it. */
  networkReason?: string;
  isolation?: IsolationReport;
  /** Snapshot that it was made from or last went back to. */
  snapshot?: string;
  timings: Timings;
  ephemeral: boolean;
}

/** All VMs of a daemon. */
export interface VmList {
  vms: VmView[];
  /** VMs whose records cannot be read: only their removal is possible. */
  damaged: { id: string; why: string }[];
}

/** A part of the list of VMs, whose replies are bounded. */
export interface VmPage {
  vms: VmView[];
  damaged?: VmList["damaged"];
  /** Where the next part begins; absent: this is the last. */
  next?: string;
}

/** What became of the wish to have ready what a VM starts from. */
export interface WarmReply {
  /** It is there, or is made once the host has nothing else to do. */
  kept: boolean;
  /** Why it is not. */
  why?: string;
}

/** One line of a streamed reply (application/x-ndjson). */
export type ReplyLine<T> =
  | { event: "progress"; progress: ProgressEvent }
  | { event: "vm"; id: string }
  | { event: "timing"; timing: CallTiming }
  | { event: "result"; result: T }
  | { event: "error"; error: ErrorInfo };

/** What a starting daemon tells its starter: one JSON line once it serves, or why it cannot. */
export type StartReport = { ready: true } | { ready: false; error: ErrorInfo };
