/** A VM's changes: listed, or made an image. The VM stands still for the instant in which its disk is taken. */
import type { CommitReport, CommitRequest, DiffEntry } from "../model/api/images.ts";
import { VmsanError, asVmsanError } from "../model/errors.ts";
import type { Digest, Image } from "../model/image.ts";
import type { VmRecord } from "../model/vm.ts";
import { damagedDisk, openFileSystem } from "../changes/disk.ts";
import { addLayer } from "../changes/image.ts";
import { layerOf } from "../changes/layer.ts";
import { listChanges } from "../changes/list.ts";
import { changesOf } from "../changes/overlay.ts";
import { Ext4Reader } from "../ext4/ext4.ts";
import { withLease } from "../oci/images.ts";
import type { Lease } from "../oci/images.ts";
import { assembleImage, findManifest } from "../oci/store/assemble.ts";
import { asPhase } from "../util/flow/phases.ts";
import type { Host } from "./host.ts";
import type { FrozenDisks, Snapshots } from "./snapshots/snapshots.ts";
import type { Work } from "./stages.ts";

/** A layer may hold so many times what the VM's disk has room for: files may have holes. */
const HOLES = 8;

/** The two file systems of a VM, for as long as `body` runs. */
async function withFileSystems<T>(
  { record, disks, dir }: FrozenDisks,
  signal: AbortSignal,
  body: (upper: Ext4Reader, base: Ext4Reader) => Promise<T>,
): Promise<T> {
  const [base, upper] = ["base", "upper"].map((role) => disks.find((disk) => disk.role === role));
  if (base === undefined || upper === undefined) {
    throw new VmsanError({
      code: "ERR_VM_DISK_MODE",
      message: `Cannot tell what ${record.name ?? record.id} has changed`,
      why: "It has one writable disk (--disk-mode flat), on which changes are not kept apart.",
      fix: "Make the VM without --disk-mode flat.",
    });
  }
  const upperReader = await openFileSystem([...(upper.backing ?? []), upper.path], dir, signal);
  try {
    const baseReader = new Ext4Reader(base.path);
    try {
      return await body(upperReader, baseReader);
    } finally {
      baseReader.close();
    }
  } catch (error) {
    throw damagedDisk(error);
  } finally {
    upperReader.close();
  }
}

/** What the VM has changed of its image. @throws ERR_VM_NOT_FOUND, ERR_VM_DISK_MODE, ERR_CHANGES_DISK */
export async function diffVm(snapshots: Snapshots, ref: string, work: Work): Promise<DiffEntry[]> {
  return await snapshots.withDisks(ref, work, async (frozen) =>
    withFileSystems(frozen, work.signal, async (upper, base) =>
      Promise.resolve(listChanges(upper, base)),
    ),
  );
}

/** The error for a VM whose image cannot be found any more. */
function imageGone(record: VmRecord, why: string, cause?: unknown): VmsanError {
  return new VmsanError(
    {
      code: "ERR_IMAGE_NOT_FOUND",
      message: `Cannot make an image of ${record.name ?? record.id}`,
      why,
      fix: "Pull or make the image again that the VM was made from; it must be the same one.",
    },
    cause,
  );
}

/** The image that a VM was made from: of the store, or where it was used from. */
async function imageOf(host: Host, record: VmRecord, lease: Lease, work: Work): Promise<Image> {
  const { image, runtime } = record;
  if (image === undefined) {
    throw imageGone(record, "It was made from a disk (--rootfs), not from an image.");
  }
  const digest = image.digest;
  const { store } = host;
  await lease.protect([digest]);
  if ((await store.blobSize(digest)) !== undefined) {
    const pathOf = (wanted: Digest): string => store.blobPath(wanted);
    const platform = { os: "", architecture: "" };
    try {
      const found = await findManifest(
        { digest, size: 0, mediaType: "" },
        platform,
        pathOf,
        image.name,
      );
      return await assembleImage(found, pathOf, image.name, store, work.signal);
    } catch (error) {
      // Its layers lie elsewhere, or are gone: then it must be found by its name.
      const known = asVmsanError(error, "");
      if (known.code !== "ERR_IMAGE_BLOB_MISSING") throw error;
    }
  }
  const text = runtime ?? image.name;
  let found: Image;
  try {
    found = await host.resolve(text, { pull: "never", lease, ...work });
  } catch (error) {
    throw imageGone(record, `${text} is not there any more.`, error);
  }
  if (found.digest === digest) return found;
  throw imageGone(record, `${text} is another image now (${found.digest}) than ${digest}.`);
}

/**
 * Make an image of what a VM was made from and what it has changed since.
 * @throws ERR_VM_NOT_FOUND, ERR_VM_DISK_MODE, ERR_IMAGE_*, ERR_CHANGES_*; no name is given then
 */
export async function commitVm(
  host: Host,
  snapshots: Snapshots,
  ref: string,
  request: CommitRequest,
  work: Work,
): Promise<CommitReport> {
  const { store } = host;
  const purpose = `commit of ${ref}`;
  return await withLease(
    store,
    purpose,
    async (lease) =>
      snapshots.withDisks(ref, work, async (frozen) => {
        const base = await asPhase(
          "find its image",
          async () => await imageOf(host, frozen.record, lease, work),
        );
        const warnings: string[] = [];
        return await withFileSystems(frozen, work.signal, async (upper, lower) => {
          const layer = layerOf(changesOf(upper, lower), {
            limitBytes: HOLES * frozen.record.diskSizeBytes,
            signal: work.signal,
            onSkip: (path, why) => warnings.push(`/${path} is left out: ${why}.`),
          });
          const made = await asPhase(
            "layer",
            async () =>
              await addLayer({
                store,
                lease,
                base,
                request,
                layer,
                signal: work.signal,
                onBytes: (done) =>
                  work.progress({ phase: "commit", message: "changes", done, unit: "bytes" }),
              }),
          );
          return { ...made, warnings };
        });
      }),
    work.signal,
  );
}
