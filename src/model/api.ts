/** What the daemon is asked and what it answers: the nouns of the HTTP API and of the SDK. */
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
  StopReason,
  Timings,
  VmStatus,
  MachineIdentity,
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

/** One line of a streamed reply (application/x-ndjson). */
export type ReplyLine<T> =
  | { event: "progress"; progress: ProgressEvent }
  | { event: "vm"; id: string }
  | { event: "result"; result: T }
  | { event: "error"; error: ErrorInfo };

/** What a starting daemon tells its starter: one JSON line once it serves, or why it cannot. */
export type StartReport = { ready: true } | { ready: false; error: ErrorInfo };

/** An image of the store as `image ls` shows it. */
export interface ImageView {
  /** Names that lead to it; none for one that only a VM still uses. */
  names: string[];
  /** Digest of the manifest. */
  digest: string;
  /** `os/architecture[/variant]`. */
  platform: string;
  /** Bytes of its blobs as stored; shared ones count in every image that uses them. */
  sizeBytes: number;
  /** RFC 3339, from the image's configuration. */
  created?: string;
  /** Names of VMs that use it. */
  usedBy: string[];
}

/** One step of an image's making, as its configuration tells. */
export interface HistoryEntry {
  /** RFC 3339; absent when it is not told. */
  created?: string;
  createdBy: string;
  comment: string;
  /** The layer that the step made; absent when it changed the configuration alone. */
  layer?: { digest: string; diffId: string; size: number };
}

/** A name that a VM has changed of its image. */
export interface DiffEntry {
  /** Absolute; bytes that are no UTF-8 as util/byte-text.ts writes them. */
  path: string;
  kind: "added" | "changed" | "deleted";
}

/** An image to be made of a VM's changes. */
export interface CommitRequest {
  /** Name of the new image, e.g. `app:2`. */
  name: string;
  /** Instructions of a Dockerfile that change the configuration, e.g. `CMD ["/bin/app"]`. */
  changes: string[];
  message?: string;
  author?: string;
}

/** What a commit has made. */
export interface CommitReport {
  /** Spelt out. */
  name: string;
  /** Of the manifest. */
  digest: string;
  /** The new layer. */
  layer: { digest: string; diffId: string; size: number };
  /** What no layer can hold was left out; why, in sentences. */
  warnings: string[];
}

/** What is built, and how: the plain form of a build's options. */
export interface BuildRequest {
  /** Names of the result, spelt as for `image tag`; none: it gets one of its digest. */
  tags: string[];
  /** What tells builds without names apart: those of one place need not send again what one of them has sent. */
  place?: string;
  /** The Dockerfile's text. */
  dockerfile: string;
  /** Patterns of what of the context is not used; absent: what the context's own file says. */
  ignore?: string;
  /** `KEY=VALUE`. */
  buildArgs: string[];
  labels: string[];
  /** `NAME=IMAGE`: what `FROM NAME` and `--from=NAME` mean; absent: nothing but what they say. */
  contexts?: string[];
  /** `NAME:ADDRESS` lines of /etc/hosts while commands run; absent: none. */
  addHosts?: string[];
  target?: string;
  platform?: string;
  /** Identifier → content in base64. */
  secrets: Record<string, string>;
  noCache: boolean;
  pull: "missing" | "always" | "never";
  /** What commands of the build may reach. */
  policy: NetworkPolicy;
  registry?: RegistryAccess;
}

/**
 * Kinds of archives of an image: one that skopeo and others read, one for `docker load`, or the files
 * alone, all layers in one.
 */
export type SaveFormat = "oci-archive" | "docker-archive" | "rootfs";

/** What a build has made. */
export interface BuildReport {
  names: string[];
  /** Of the manifest. */
  digest: string;
  configDigest: string;
  /** Where the daemon's time went. */
  timings: Timings;
}

/** Which builder is to be removed: its cache is one thing, so that all of it goes or nothing. */
export interface BuildPruneRequest {
  /** Only one whose disk nobody has written to for so long, in milliseconds. */
  unusedMs?: number;
  /** Only one that takes more than so many bytes. */
  keepBytes?: number;
}

/** What was freed by the removal of a builder. */
export interface BuildPrune {
  removed: boolean;
  freedBytes: number;
}

/** What a push has done. */
export interface PushReport {
  /** The image's name in the store. */
  name: string;
  /** Where it is now, spelt out. */
  destination: string;
  /** Of the manifest, there as here. */
  digest: string;
  /** Blobs, and how each came there: it was there, the registry had it elsewhere, or it was sent. */
  blobs: { digest: string; size: number; how: "present" | "mounted" | "sent" }[];
}

/** The images of the store and what they really occupy. */
export interface ImageList {
  images: ImageView[];
  /** Bytes of all blobs, shared ones counted once. */
  blobBytes: number;
  /** Bytes allocated by cached disk images. */
  diskBytes: number;
}

/** What a prune has removed. */
export interface PruneReport {
  images: string[];
  blobs: number;
  disks: number;
  freedBytes: number;
}

/** A disk image to be written to a file of the user's. */
export interface DiskRequest {
  image: string;
  /** Absolute path that does not exist yet. */
  output: string;
  sizeBytes: number;
  builder: "direct" | "mke2fs";
  journal: boolean;
  platform?: string;
  pull: PullPolicy;
  registry?: RegistryAccess;
}

/** A kernel of the store as `kernel ls` shows it. */
export interface KernelView {
  id: string;
  /** Its `uname -r`. */
  version: string;
  arch: "x86_64" | "aarch64";
  /** `debian`: fetched by vmsan; `built`: by scripts/build-kernel.sh; `added`: by the user. */
  origin: "debian" | "built" | "added";
  /** Where it comes from, for people. */
  source: string;
  /** Modules that the initramfs brings along; none when all is built in. */
  modules: number;
  /** Guests load all others on demand, from a disk of them. */
  modulesDisk: boolean;
  sizeBytes: number;
  /** RFC 3339. */
  addedAt: string;
  /** New VMs get this one. */
  current: boolean;
  /** Names of VMs that boot it. */
  usedBy: string[];
}

/** The kernels of the store. */
export interface KernelList {
  kernels: KernelView[];
  /** What `kernel use` was told last: an ID or `default`. */
  chosen: string;
}

/** A kernel to be added to the store. */
export interface KernelRequest {
  /** Absolute path of vmlinuz, bzImage, vmlinux or Image. */
  file: string;
  /** Absolute path of its /lib/modules/VERSION; without one everything must be built in. */
  modulesDir?: string;
}
