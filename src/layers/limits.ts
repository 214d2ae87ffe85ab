/** Bounds on what a layer may make us do. */

/** See {@link DEFAULT_LIMITS} for the values; all are inclusive. */
export interface LayerLimits {
  /** Entries of all layers together. */
  entries: number;
  /** Bytes of the PAX and GNU headers of one entry, and of all global ones that are in force. */
  headerBytes: number;
  /** Bytes of names, link targets and attributes that are remembered of all layers together. */
  metadataBytes: number;
  /** Directories that no entry describes, but that paths lead through. */
  implied: number;
  /** Bytes of a path. */
  pathBytes: number;
  /** Components of a path. */
  depth: number;
  /** Uncompressed bytes of all layers together. */
  archiveBytes: number;
  /** Uncompressed bytes per compressed one, counted from 1 GiB of uncompressed bytes on. */
  expansion: number;
}

/**
 * Far above any image seen. A million entries take some 550 MB of the building process, so it stays
 * below 1.2 GB and what names and attributes add.
 */
export const DEFAULT_LIMITS: LayerLimits = {
  entries: 2_000_000,
  headerBytes: 1024 * 1024,
  metadataBytes: 256 * 1024 * 1024,
  implied: 1_000_000,
  pathBytes: 4096,
  depth: 2000,
  archiveBytes: 2 ** 40,
  // deflate cannot exceed 1032; zstd can, without bound.
  expansion: 1100,
};
