/**
 * Images: where they come from, what they are, and the blobs they consist of.
 * Follows the OCI image spec 1.1 (descriptor.md, config.md, layer.md).
 */

/** `sha256:` and 64 hex digits. */
export type Digest = `sha256:${string}`;

/** A registry reference, fully spelled out (Docker's default rules applied). */
export interface ImageReference {
  /** Host and port, e.g. `docker.io`, `localhost:5000`. */
  registry: string;
  /** Path within the registry, e.g. `library/node`. */
  repository: string;
  tag?: string;
  digest?: Digest;
}

/** Where an image comes from. Paths are absolute once the CLI has parsed them. */
export type ImageSource =
  | { kind: "registry"; reference: ImageReference }
  | { kind: "oci"; path: string; tag?: string }
  | { kind: "oci-archive"; path: string; tag?: string }
  | { kind: "docker-archive"; path: string; tag?: string }
  | { kind: "docker-daemon"; name: string }
  | { kind: "rootfs"; path: string }
  | { kind: "runtime"; name: string };

/** OCI platform: what a manifest of an index is for. */
export interface Platform {
  os: string;
  architecture: string;
  variant?: string;
}

/** A command that tells whether an image's main process does its work (Docker's HEALTHCHECK). */
export interface ImageHealthcheck {
  /** `CMD` or `CMD-SHELL` and words, or `NONE`; empty: what an image below says. */
  test: string[];
  /** Nanoseconds, as in the configuration; 0 or absent: whoever runs it decides. */
  interval?: number;
  timeout?: number;
  startPeriod?: number;
  startInterval?: number;
  /** Failures in a row that make it unhealthy. */
  retries?: number;
}

/** The part of the OCI image configuration that decides how a command runs. */
export interface ImageConfig {
  /** `KEY=VALUE` entries. */
  env: string[];
  entrypoint: string[];
  cmd: string[];
  /** Empty means `/`. */
  workingDir: string;
  /** `user`, `uid`, `user:group`, `uid:gid`; empty means root. */
  user: string;
  labels: Record<string, string>;
  exposedPorts: string[];
  volumes: string[];
  /** Name or number of the signal that stops the image's command. */
  stopSignal?: string;
  /** Of images in Docker's format alone; what runs single commands has no use for it. */
  healthcheck?: ImageHealthcheck;
}

/** How a layer blob is compressed. */
export type Compression = "none" | "gzip" | "zstd";

/** One layer: a tar archive, possibly compressed, as a file of the content store. */
export interface LayerBlob {
  /** Digest of the blob as stored (compressed). */
  digest: Digest;
  /** Size of the blob as stored, in bytes. */
  size: number;
  /** Digest of the uncompressed archive, to its very end. */
  diffId: Digest;
  compression: Compression;
  /** Absolute path of the blob. */
  path: string;
}

/** A layer that is still being fetched. */
export interface ComingLayer extends LayerBlob {
  /** Absolute path of what has come of it, until all is at `path`. */
  partial: string;
}

/** Follows an image's layers while they are fetched. */
export interface LayerFollower {
  /** So many bytes of a layer are in its file, from the start. */
  arrived(digest: Digest, bytes: number): void;
  /** What came of a layer was not its content: it comes anew. */
  lost(): void;
}

/** An image whose blobs are all present and verified. */
export interface Image {
  /** How the user may name it again: `docker.io/library/node:22`, `oci:/dir:tag`. */
  name: string;
  /** Digest of the manifest. */
  digest: Digest;
  /** Digest of the configuration. */
  configDigest: Digest;
  platform: Platform;
  config: ImageConfig;
  /** Bottom to top, as in the manifest. */
  layers: LayerBlob[];
}
