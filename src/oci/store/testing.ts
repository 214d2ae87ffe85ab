/** What tests want to know of a store besides: whether all of it is what it should be. */
import type { Digest, Image } from "../../model/image.ts";
import { findDiffId } from "./ingest.ts";
import { listNames } from "./names.ts";
import { digestsIn, reach } from "./space.ts";
import { digestFile } from "./store.ts";
import type { ContentStore } from "./store.ts";

/** Look that every layer, decompressed, is what the image's configuration says, whatever the store remembers. */
export async function verifyDiffIds(image: Image): Promise<void> {
  for (const { path, digest, diffId, compression } of image.layers) {
    const found = await findDiffId(path, compression);
    if (found !== diffId) {
      throw new Error(`Layer ${digest} is ${found}, the configuration says ${diffId}`);
    }
  }
}

/** A blob that is not what it should be. */
interface StoreProblem {
  digest: Digest;
  problem: "missing" | "corrupt";
  /** A name that needs it; none for a corrupt blob that nothing needs. */
  neededBy: string | undefined;
}

/** Read every blob again, and look that named images have all of theirs. */
export async function verifyStore(store: ContentStore): Promise<StoreProblem[]> {
  const problems: StoreProblem[] = [];
  const users = new Map<Digest, string>();
  for (const { descriptor, name } of await listNames(store)) {
    const needed = new Set<Digest>();
    await reach(store, descriptor.digest, needed);
    for (const digest of needed) {
      if (!users.has(digest)) users.set(digest, name);
    }
  }
  const present = new Set(await digestsIn(store, "blobs/sha256"));
  for (const digest of present) {
    const found = await digestFile(store.blobPath(digest));
    if (found.digest !== digest) {
      problems.push({ digest, problem: "corrupt", neededBy: users.get(digest) });
    }
  }
  for (const [digest, neededBy] of users) {
    if (!present.has(digest)) problems.push({ digest, problem: "missing", neededBy });
  }
  return problems;
}
