/** `rootfs:DIR` and `rootfs:FILE.tar[.gz|.zst|.xz|.bz2]`: a bare tree becomes a one-layer image. */
import { spawn } from "node:child_process";
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import type { Stats } from "node:fs";
import { PassThrough } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { Digest, Image } from "../../model/image.ts";
import { errnoOf, messageOf } from "../../model/errors.ts";
import { protectBytes } from "./archive-file.ts";
import type { ArchiveContext } from "./archive-file.ts";
import { assembleImage } from "../store/assemble.ts";
import { isCompression } from "../../util/packing/uncompressed.ts";
import { packingOf } from "../store/decompress.ts";
import { MEDIA } from "../documents/media.ts";
import { imageError } from "../errors.ts";
import { findDiffId, ingest } from "../store/ingest.ts";
import { setName } from "../store/names.ts";
import { digestFile } from "../store/store.ts";

/**
 * What makes GNU tar's output depend on the tree alone: sorted names, numeric owners, no
 * access or change times (reading a file would change the former), and extended headers with
 * a fixed name and time (else those of the moment).
 */
const TAR_ARGUMENTS = [
  "--create",
  "--format=pax",
  "--pax-option=exthdr.name=%d/PaxHeaders/%f,exthdr.mtime=0,delete=atime,delete=ctime",
  "--sort=name",
  "--numeric-owner",
  "--xattrs",
  "--xattrs-include=*",
  "--acls",
  "--file=-",
];

/** Archive a directory with GNU tar into the store. */
async function archiveDirectory(
  dir: string,
  context: ArchiveContext,
): Promise<{ digest: Digest; size: number }> {
  const { store, lease, signal } = context;
  const failure = (why: string, cause?: unknown): Error =>
    imageError(
      "ERR_IMAGE_ROOTFS",
      `Cannot archive the directory ${dir}`,
      why,
      "Make every file readable (run as root for a tree with several owners), and keep it unchanged meanwhile.",
      cause,
    );
  const child = spawn("tar", [...TAR_ARGUMENTS, "--directory", dir, "."], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, LC_ALL: "C" },
  });
  // Read from the first moment on: Node throws away the output of a process that has ended
  // before anybody reads it, and storing it begins only after a file has been opened.
  const output = new PassThrough({ highWaterMark: 1 << 20 });
  pipeline(child.stdout, output).catch((error: unknown) => {
    output.destroy(error instanceof Error ? error : new Error(messageOf(error)));
  });
  let said = "";
  child.stderr.setEncoding("utf8");
  child.stderr.on("data", (text: string) => {
    said = (said + text).slice(-4000);
  });
  const ended = new Promise<number | null>((resolve, reject) => {
    child.on("error", (error) => reject(failure(`tar does not run: ${messageOf(error)}`, error)));
    child.on("close", resolve);
  });
  // Looked at only after the output has ended; a failure before that must not be unhandled.
  ended.catch(() => undefined);
  // tar's status decides whether its output is the whole tree, so nothing is named before it.
  try {
    const blob = await ingest(store, lease, output, {}, `the tree ${dir}`, signal);
    const status = await ended;
    if (status !== 0) throw failure(`tar ended with status ${status}: ${said.trim()}`);
    if (blob.size === 0) throw failure("tar wrote nothing at all.");
    return blob;
  } finally {
    child.kill("SIGKILL");
  }
}

/** A layer, and whether it is used where it is instead of being kept in the store. */
interface RootLayer {
  digest: Digest;
  /** Bytes. */
  size: number;
  diffId: Digest;
  /** Of its media type. */
  suffix: string;
  inPlace: boolean;
}

/**
 * The layer of a tar file: used where it is, its digests remembered until it changes. One that is
 * compressed as layers are not to be is unpacked into the store.
 */
async function layerOfFile(path: string, context: ArchiveContext): Promise<RootLayer> {
  const { store, lease, signal } = context;
  const packing = packingOf(path);
  const known = await store.knownFile(path);
  if (!isCompression(packing)) {
    if (known?.diffId !== undefined) {
      await lease.protect([known.diffId]);
      const size = await store.blobSize(known.diffId);
      if (size !== undefined) {
        return { digest: known.diffId, size, diffId: known.diffId, suffix: "", inPlace: false };
      }
    }
    const { digest } = await digestFile(path, signal);
    const source = createReadStream(path, { highWaterMark: 1 << 20 });
    const blob = await ingest(store, lease, source, {}, path, signal, packing);
    await store.markVerified(path, digest, { diffId: blob.digest });
    return { ...blob, diffId: blob.digest, suffix: "", inPlace: false };
  }
  const suffix = packing === "none" ? "" : `+${packing}`;
  const { size } = await stat(path);
  if (known?.diffId !== undefined) {
    return { digest: known.digest, size, diffId: known.diffId, suffix, inPlace: true };
  }
  const { digest } = await digestFile(path, signal);
  const diffId = packing === "none" ? digest : await findDiffId(path, packing, signal);
  await store.markVerified(path, digest, { diffId });
  return { digest, size, diffId, suffix, inPlace: true };
}

/** The layer of a directory, archived into the store. */
async function layerOfDirectory(path: string, context: ArchiveContext): Promise<RootLayer> {
  const blob = await archiveDirectory(path, context);
  return { ...blob, diffId: blob.digest, suffix: "", inPlace: false };
}

/** The image of a bare tree, for this host's platform. */
export async function resolveRootfs(
  source: { path: string },
  name: string,
  context: ArchiveContext,
): Promise<Image> {
  const { store, lease, platform, signal } = context;
  let stats: Stats;
  try {
    stats = await stat(source.path);
  } catch (error) {
    throw imageError(
      "ERR_IMAGE_NOT_FOUND",
      `Cannot read ${source.path}`,
      errnoOf(error) === "ENOENT" ? "There is no such file or directory." : messageOf(error),
      "Check the path.",
      error,
    );
  }
  if (!stats.isFile() && !stats.isDirectory()) {
    throw imageError(
      "ERR_IMAGE_ROOTFS",
      `Cannot use ${source.path}`,
      "It is neither a directory nor a file.",
      "Name a directory or a tar archive (plain, .gz, .zst, .xz or .bz2).",
    );
  }
  const layer = stats.isFile()
    ? await layerOfFile(source.path, context)
    : await layerOfDirectory(source.path, context);
  const configBytes = Buffer.from(
    JSON.stringify({
      ...platform,
      config: {},
      rootfs: { type: "layers", diff_ids: [layer.diffId] },
    }),
  );
  const configDigest = await protectBytes(configBytes, store, lease);
  const manifest = {
    schemaVersion: 2,
    mediaType: MEDIA.manifest,
    config: { mediaType: MEDIA.config, digest: configDigest, size: configBytes.length },
    layers: [
      { mediaType: `${MEDIA.layer}${layer.suffix}`, digest: layer.digest, size: layer.size },
    ],
  };
  const bytes = Buffer.from(JSON.stringify(manifest));
  const digest = await protectBytes(bytes, store, lease);
  const found = {
    digest,
    size: bytes.length,
    mediaType: MEDIA.manifest,
    manifest,
  };
  const pathOf = (wanted: Digest): string =>
    layer.inPlace && wanted === layer.digest ? source.path : store.blobPath(wanted);
  const image = await assembleImage(found, pathOf, name, store, signal);
  // A file's layer is not in the store, so the store cannot list it as an image of its own.
  if (!layer.inPlace) await setName(store, { name, ...found, platform });
  return image;
}
