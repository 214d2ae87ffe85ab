/** Images, as the daemon is asked for them and shows them; what becomes one. */
import type { PullPolicy, RegistryAccess } from "../api.ts";

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
  /** Of a file that is the VM's own, with the first of its names. */
  sizeBytes?: number;
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

/**
 * Kinds of archives of an image: one that skopeo and others read, one for `docker load`, or the files
 * alone, all layers in one.
 */
export type SaveFormat = "oci-archive" | "docker-archive" | "rootfs";

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
