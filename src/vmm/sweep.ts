/**
 * At the daemon's start: VMs that hold a user id but that nobody knows any more (a daemon was
 * killed while it removed or made them) lose their processes, control groups and ids. Claims of
 * other installations are left alone, unless the VM's directory is gone and nothing of it runs.
 */
import { existsSync } from "node:fs";
import { basename, dirname } from "node:path";
import { messageOf } from "../model/errors.ts";
import { isSameDirectory, worksInNamesake } from "../util/files/directory.ts";
import { cgroupProcesses, killCgroup, removeCgroup } from "./cgroup.ts";
import type { CleanupReport } from "./driver.ts";
import { releaseUids, uidClaims, type UidClaim } from "./uids.ts";

/** Whose VMs are looked at. */
export interface SweepScope {
  /** Where user ids are claimed, as given to the drivers. */
  uidDir: string;
  /** Directory of this installation's VMs. */
  vmsDir: string;
  /** Whether there is a record of a VM of this installation. */
  isKnown: (id: string) => boolean;
}

/** Whether nobody will ever clean up after this VM. */
async function isForgotten(claim: UidClaim, scope: SweepScope): Promise<boolean> {
  const { vm, vmDir } = claim;
  if (vmDir === "") return false;
  if (!isSameDirectory(dirname(vmDir), scope.vmsDir)) {
    return !existsSync(vmDir) && (await cgroupProcesses(vm)).length === 0;
  }
  if (scope.isKnown(basename(vmDir))) return false;
  // This directory may stand in the place of another one that was moved with its VMs.
  return !(await cgroupProcesses(vm)).some((pid) => worksInNamesake(pid, vmDir));
}

/** Remove what unknown VMs have left on the host; their directories are the caller's. */
export async function sweepHost(scope: SweepScope): Promise<CleanupReport> {
  const report: CleanupReport = { removed: [], failed: [] };
  for (const claim of await uidClaims(scope.uidDir)) {
    const { vm } = claim;
    try {
      if (!(await isForgotten(claim, scope))) continue;
      for (const pid of await killCgroup(vm)) report.removed.push(`process ${pid}`);
      const groups = await removeCgroup(vm);
      report.removed.push(...groups.removed);
      report.failed.push(...groups.failed);
      await releaseUids(scope.uidDir, vm);
      report.removed.push(`user id of ${vm}`);
    } catch (error) {
      report.failed.push({ what: vm, why: messageOf(error) });
    }
  }
  return report;
}
