/** Disk images apart from a VM: written for a user, and removed from the cache. */
import { mkdir } from "node:fs/promises";
import { basename, dirname } from "node:path";
import type { Readable } from "node:stream";
import type { ResourceUser } from "../model/api.ts";
import type { DiskRequest } from "../model/api/images.ts";
import type { DiskSummary } from "../model/disk.ts";
import { withLease } from "../oci/images.ts";
import { keptImage } from "../oci/archives/save.ts";
import { findImage } from "../oci/store/manage.ts";
import { builders, pruneRootfs } from "../rootfs/cache.ts";
import { openTreeArchive } from "../rootfs/tree-archive.ts";
import type { Host } from "./host.ts";
import type { Work } from "./stages.ts";

/** Write an image's disk to a file of the user's; nothing is left there when it fails. */
export async function buildDiskFile(
  host: Host,
  request: DiskRequest,
  work: Work,
): Promise<DiskSummary> {
  return await withLease(
    host.store,
    `disk ${request.output}`,
    async (lease) => {
      const image = await host.resolve(request.image, {
        lease,
        pull: request.pull,
        ...(request.platform === undefined ? {} : { platform: request.platform }),
        ...(request.registry === undefined ? {} : { registry: request.registry }),
        ...work,
      });
      const options = { sizeBytes: request.sizeBytes, journal: request.journal };
      return await builders[request.builder].build(image.layers, request.output, options, {
        signal: work.signal,
        progress: (done, total) =>
          work.progress({ phase: "build", message: "disk image", done, total, unit: "bytes" }),
      });
    },
    work.signal,
  );
}

/** An image's files as one tar archive, links, owners and all. @param name of the store */
export async function openImageTree(
  host: Host,
  name: string,
  signal: AbortSignal,
): Promise<Readable> {
  return await withLease(
    host.store,
    `files of ${name}`,
    async (lease) => {
      const { store } = host;
      await lease.protect([(await findImage(store, name)).descriptor.digest]);
      const { image } = await keptImage({ store, signal }, name);
      await mkdir(host.layout.rootfs, { recursive: true });
      return await openTreeArchive(image.layers, host.layout.rootfs, { signal });
    },
    signal,
  );
}

/** Remove cached disks that no VM or snapshot uses. */
export async function pruneDisks(
  cacheDir: string,
  vms: readonly ResourceUser[],
): Promise<{ removed: string[]; freedBytes: number }> {
  // An entry's directory is named by its key.
  return await pruneRootfs(
    cacheDir,
    vms.map(({ rootfs }) => basename(dirname(rootfs))),
  );
}
