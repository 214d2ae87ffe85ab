/** Volumes: file systems with a name, which outlive the VMs that use them. */

/** Label of a volume: the project whose keys may use it. */
export const PROJECT_LABEL = "vmsan.project";

/** What is stored of each volume besides its disk. */
export interface VolumeRecord {
  /** Version of this document. */
  schema: 1;
  name: string;
  createdAt: string;
  labels: Record<string, string>;
  /** Label of its file system, by which guests find it. */
  fsLabel: string;
}

/** A volume as the API shows it. */
export interface VolumeView {
  name: string;
  createdAt: string;
  labels: Record<string, string>;
  /** As guests see it. */
  sizeBytes: number;
  /** Allocated on the host. */
  storedBytes: number;
  /** Names of VMs, also stopped ones, that mount it. */
  usedBy: string[];
  /** Who holds it now: nobody, one VM that may write, or VMs that read. */
  state: "free" | "written" | "read";
  /** Why it cannot be used. */
  damaged?: string;
}

/** A volume to be made. */
export interface VolumeRequest {
  name: string;
  sizeBytes: number;
  labels: Record<string, string>;
}

/** What a prune of volumes has removed. */
export interface VolumePrune {
  volumes: string[];
  freedBytes: number;
}
