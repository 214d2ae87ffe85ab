/** `rootfs:DIR` and `rootfs:FILE.tar[.gz|.zst]`: a bare tree becomes a one-layer image. */
import { spawn } from "node:child_process";
import { stat } from "node:fs/promises";
import type { Stats } from "node:fs";
import { PassThrough } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { Digest, Image } from "../../model/image.ts";
import { errnoOf, messageOf } from "../../model/errors.ts";
import { protectBytes } from "./archives.ts";
import type { ArchiveContext } from "./archives.ts";
import { assembleImage, compressionOf } from "../store/assemble.ts";
import { MEDIA } from "../documents/documents.ts";
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

/** The layer of a tar file: used where it is, its digests remembered until it changes. */
async function inspectFile(
  path: string,
  context: ArchiveContext,
): Promise<{ digest: Digest; size: number; diffId: Digest; suffix: string }> {
  const { store, signal } = context;
  const compression = compressionOf(path);
  const suffix = compression === "none" ? "" : `+${compression}`;
  const { size } = await stat(path);
  const known = await store.knownFile(path);
  if (known?.diffId !== undefined) {
    return { digest: known.digest, size, diffId: known.diffId, suffix };
  }
  const { digest } = await digestFile(path, signal);
  const diffId = compression === "none" ? digest : await findDiffId(path, compression, signal);
  await store.markVerified(path, digest, { diffId });
  return { digest, size, diffId, suffix };
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
  const inPlace = stats.isFile();
  if (!inPlace && !stats.isDirectory()) {
    throw imageError(
      "ERR_IMAGE_ROOTFS",
      `Cannot use ${source.path}`,
      "It is neither a directory nor a file.",
      "Name a directory or a tar archive (plain, .gz or .zst).",
    );
  }
  const layer = inPlace
    ? await inspectFile(source.path, context)
    : await archiveDirectory(source.path, context).then((blob) => ({
        ...blob,
        diffId: blob.digest,
        suffix: "",
      }));
  const configBytes = Buffer.from(
    JSON.stringify({
      ...platform,
      config: {},
      rootfs: { type: "layers", diff_ids: [layer.diffId] },
    }),
  );
  const configDigest = await protectBytes(configBytes, store, lease);
  const manifest = {
    schemaVersion: 2 as const,
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
    manifest: { ...manifest, manifests: undefined },
  };
  const pathOf = (wanted: Digest): string =>
    inPlace && wanted === layer.digest ? source.path : store.blobPath(wanted);
  const image = await assembleImage(found, pathOf, name, store, signal);
  // A file's layer is not in the store, so the store cannot list it as an image of its own.
  if (!inPlace) await setName(store, { name, ...found, platform });
  return image;
}
