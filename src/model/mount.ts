/** What is mounted into a guest besides its disk: as asked for, in full. */

/** A directory of the host, or one file, shared with the guest. */
export interface BindMount {
  kind: "bind";
  /** Absolute path on the host. */
  source: string;
  /** Absolute path in the guest, without `.`, `..` and a slash at the end. */
  target: string;
  readonly: boolean;
  /** A regular file: found out when the VM is made or started. */
  file?: true;
}

/** A volume with a name, which outlives its VMs. */
export interface VolumeMount {
  kind: "volume";
  name: string;
  /** As in {@link BindMount}. */
  target: string;
  readonly: boolean;
  /** Left empty: the image's content at the target is not copied into a new volume. */
  nocopy: boolean;
  /** Not the volume itself: a copy of one instant, on a disk of the VM's own that goes with it. */
  copy?: true;
}

/** A directory on the VM's own disk, beside the image's tree; gone with the VM. */
export interface AnonymousMount {
  kind: "anonymous";
  /** As in {@link BindMount}. */
  target: string;
  /** Nothing of the image is in it, and everybody in the guest may write there. */
  empty?: true;
}

/** A file system in the guest's memory; gone when the VM stops. */
export interface TmpfsMount {
  kind: "tmpfs";
  /** As in {@link BindMount}. */
  target: string;
  /** Most bytes that it holds; default half of the guest's memory. */
  sizeBytes?: number;
  /** Permissions of its root; default 0o1777. */
  mode?: number;
  /** Whose its root is; default root's. */
  uid?: number;
  gid?: number;
  /** Programs in it cannot be run. */
  noexec?: true;
}

/** One thing to be mounted. */
export type Mount = BindMount | VolumeMount | AnonymousMount | TmpfsMount;
