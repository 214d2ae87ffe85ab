/**
 * At the daemon's start: VMs that hold a user id of this installation but that nobody knows any
 * more (a daemon was killed while it removed or made them) lose their control groups and ids.
 * Only such VMs are touched: other installations on this host have ids in directories of their own.
 */
import { join } from "node:path";
import { messageOf } from "../model/errors.ts";
import { removeCgroup, killCgroup } from "./cgroup.ts";
import type { CleanupReport } from "./driver.ts";
import { releaseUids, uidHolders } from "./uids.ts";

/**
 * Remove what unknown VMs have left on the host; their directories are the caller's.
 * @param stateDir as given to the drivers
 * @param isKnown whether there is a record of a VM
 */
export async function sweepHost(
  stateDir: string,
  isKnown: (id: string) => boolean,
): Promise<CleanupReport> {
  const report: CleanupReport = { removed: [], failed: [] };
  const uidDir = join(stateDir, "uids");
  for (const id of await uidHolders(uidDir)) {
    if (isKnown(id)) continue;
    try {
      for (const pid of await killCgroup(id)) report.removed.push(`process ${pid}`);
      const groups = await removeCgroup(id);
      report.removed.push(...groups.removed);
      report.failed.push(...groups.failed);
      await releaseUids(uidDir, id);
      report.removed.push(`user id of ${id}`);
    } catch (error) {
      report.failed.push({ what: id, why: messageOf(error) });
    }
  }
  return report;
}
