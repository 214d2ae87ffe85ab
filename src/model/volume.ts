/**
 * Volumes: file systems with a name, which outlive the VMs that use them; shared ones are directories of the host that
 * any number of VMs write to at the same time.
 */

/** Label of a volume: the project whose keys may use it. */
export const PROJECT_LABEL = "vmsan.project";

/** What is stored of each volume besides its disk. */
export interface VolumeRecord {
  /** Version of this document. */
  schema: 1;
  name: string;
  createdAt: string;
  labels: Record<string, string>;
  /** Label of its file system, by which guests find it; "" of a shared one, which has none. */
  fsLabel: string;
  /** A directory instead of a disk. */
  shared?: true;
  /** What a shared one may take up, in bytes; absent: {@link VOLUME_BYTES}. */
  sizeBytes?: number;
}

/** A volume as the API shows it. */
export interface VolumeView {
  name: string;
  createdAt: string;
  labels: Record<string, string>;
  /** Any number of VMs may write to it at the same time. */
  shared?: true;
  /** As guests see it. */
  sizeBytes: number;
  /** Allocated on the host. */
  storedBytes: number;
  /** Names of VMs, also stopped ones, that mount it. */
  usedBy: string[];
  /** Who holds it now: nobody, VMs of which one may write (a shared one: any), or VMs that read. */
  state: "free" | "written" | "read";
  /** Why it cannot be used. */
  damaged?: string;
}

/** A volume to be made. */
export interface VolumeRequest {
  name: string;
  /** Default {@link VOLUME_BYTES}. */
  sizeBytes?: number;
  labels: Record<string, string>;
  shared?: true;
}

/** Size of a volume for which none is asked, in bytes. */
export const VOLUME_BYTES: number = 10 * 2 ** 30;

/** What a prune of volumes has removed. */
export interface VolumePrune {
  volumes: string[];
  freedBytes: number;
}
