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
  /** A directory or file of it, by its path there, that is mounted instead of all of it; it must be there. */
  part?: string;
  /** Left empty: the image's content at the target is not copied into a new volume. */
  nocopy: boolean;
  /** It is a directory of the host, which others may write to as well: found out when the VM is made or started. */
  shared?: true;
  /** The part of a shared one is a regular file: likewise. */
  file?: true;
  /** Not the volume itself: a copy of one instant, on a disk of the VM's own that goes with it. */
  copy?: true;
}

/** What the VM itself has, and may show at several places. */
interface Shown {
  /** Mounts of one kind and name are the same directory; default: each has its own. */
  name?: string;
  /** A path below it, made where it is missing: what is shown of it; default all. */
  part?: string;
  /** Here, whatever it is elsewhere. */
  readonly?: boolean;
}

/** A directory on the VM's own disk, beside the image's tree; gone with the VM. */
export interface AnonymousMount extends Shown {
  kind: "anonymous";
  /** As in {@link BindMount}. */
  target: string;
  /** Nothing of the image is in it, and everybody in the guest may write there. */
  empty?: true;
  /** Permissions of an empty one; default 0o777. */
  mode?: number;
  /** Whose group an empty one is; default root's. */
  gid?: number;
}

/** A file system in the guest's memory; gone when the VM stops. */
export interface TmpfsMount extends Shown {
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
