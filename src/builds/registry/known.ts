/** Results that the store has already: an image's identifier for buildah is its configuration's digest. */
import type { Digest } from "../../model/image.ts";
import type { ContentStore, Lease } from "../../oci/images.ts";
import { isDigest } from "../../oci/reference.ts";
import { blobsOf } from "../../oci/store/assemble.ts";
import { manifestOf } from "../../oci/store/manage.ts";
import { listNames } from "../../oci/store/names.ts";
import type { SentManifest } from "./results.ts";

/**
 * The manifest of a named image with this configuration, all of whose blobs are there; the lease then
 * holds them. A configuration names the content of every layer, so nothing need be sent again.
 * @param id `sha256:…`, or its digits alone
 */
export async function findBuilt(
  store: ContentStore,
  lease: Lease,
  id: string,
): Promise<SentManifest | undefined> {
  const wanted = id.startsWith("sha256:") ? id : `sha256:${id}`;
  if (!isDigest(wanted)) return undefined;
  for (const entry of await listNames(store)) {
    let found;
    try {
      found = await manifestOf(store, entry);
    } catch {
      // ERR_IMAGE_BLOB_*: a damaged image is none that could be used.
      continue;
    }
    if (found.manifest.config.digest !== wanted) continue;
    const blobs: Digest[] = blobsOf(found);
    await lease.protect(blobs);
    const sizes = await Promise.all(blobs.map(async (digest) => store.blobSize(digest)));
    if (sizes.includes(undefined)) continue;
    const { digest, size, mediaType } = entry.descriptor;
    return { digest, size, mediaType };
  }
  return undefined;
}
