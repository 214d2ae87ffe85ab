/** Snapshots: a VM as it was at one instant, to make others from or to go back to. */
import type { Digest, ImageConfig } from "./image.ts";
import type { Mount } from "./mount.ts";
import type { NetworkPolicy } from "./policy.ts";
import type { DiskAttachment, DriverName, MachineIdentity, StoredFile } from "./vm.ts";

/** Sizes of a snapshot in bytes. */
export interface SnapshotSizes {
  /** As guests see disks and memory. */
  apparent: number;
  /** Allocated by its files. */
  stored: number;
  /** Of those, in files that a VM or another snapshot has too. */
  shared: number;
}

/** What is stored of each snapshot, one JSON document a snapshot. */
export interface SnapshotRecord {
  /** Version of this document. */
  schema: 1;
  /** `snap-` and 8 hex digits. */
  id: string;
  name?: string;
  createdAt: string;
  /** Snapshot that the VM was made from or last went back to. */
  parent?: string;
  /** The VM it was taken of. */
  vm: { id: string; name?: string };
  /** That VM's project; absent for those that were imported or are older than projects are noted. */
  project?: string;
  /** False: the disk alone; a VM made of it boots. */
  memory: boolean;
  image?: { name: string; digest: Digest; config: ImageConfig };
  runtime?: string;
  driver: DriverName;
  machine: MachineIdentity;
  kernel: { path: string; file?: string };
  initramfs: string;
  kernelArgs: string[];
  vcpus: number;
  memMib: number;
  diskSizeBytes: number;
  /**
   * Those on its own disk; with memory also directories of the host, volumes that it only reads, and copies
   * of those that it wrote to.
   */
  mounts?: Mount[];
  /** As in the VM's record. */
  sysctls?: Record<string, string>;
  bootTimeoutMs?: number;
  /**
   * Disks in their order. Those of the VM's own lie in the snapshot: `path` and `backing` are
   * names of its files, and nothing is written to them; shared ones have absolute paths.
   */
  disks: DiskAttachment[];
  /** Whether the VM had a network card. */
  card: boolean;
  defaults: { env: string[]; user?: string; workdir?: string };
  policy: NetworkPolicy;
  /** Names of the private networks that it was in; absent: none. */
  networks?: string[];
  /** Everything in its directory but this document. */
  files: StoredFile[];
  /** Milliseconds that the VM stood still for it. */
  pauseMs: number;
}

/** A VM that has booted and in which nothing has run yet: what is kept with its files. */
export interface Template {
  /** The VM's own disk, absent where it has none yet; `path` is a name in the template's directory. */
  disk?: DiskAttachment;
  files: StoredFile[];
  /** Of its memory file, which a VMM that its guest has taken over may be able to write to: another one from then on. */
  stamp: string;
  /** Files elsewhere without which it is of no use. */
  needs: string[];
  machine: MachineIdentity;
  /** What it is made for, but for what may change under it: one template for each. */
  slot: string;
}
