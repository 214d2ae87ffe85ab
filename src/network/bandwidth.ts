/** The limit of a VM's bandwidth, changed while it runs. */
import { isLost } from "./helper.ts";
import type { Realm } from "./host/realm.ts";
import { shape, shaperLink, unshape, unshapeLink } from "./kernel/links.ts";
import type { Lease } from "./leases.ts";

/** Change it. @param mbit 0 for none */
export async function reshape(
  realm: Realm,
  netns: string,
  lease: Lease,
  mbit: number,
): Promise<void> {
  try {
    if (!lease.changing) {
      await reshapeOnce(realm, netns, lease.shapedMbit, mbit);
      return;
    }
  } catch (error) {
    if (!isLost(error)) throw error;
  }
  // Nobody knows how far a change came.
  await realm.tcIn(netns, unshape(), undefined, true);
  await realm.ipIn(netns, unshapeLink, undefined, true);
  await reshapeOnce(realm, netns, 0, mbit);
}

async function reshapeOnce(
  realm: Realm,
  netns: string,
  before: number,
  mbit: number,
): Promise<void> {
  if (before === mbit) return;
  if (mbit === 0) {
    await realm.tcIn(netns, unshape());
    await realm.ipIn(netns, unshapeLink);
  } else {
    if (before === 0) await realm.ipIn(netns, shaperLink());
    await realm.tcIn(netns, shape(mbit, before !== 0));
  }
}
