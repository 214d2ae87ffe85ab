/**
 * Ends what a build started, whichever way it was cut short. mmdebstrap's helpers leave its
 * process group (fakeroot's server is a daemon), so they are known by the temporary directory in
 * their environment, which is the build's own: also by the next vmsan after one that was killed.
 */
import { existsSync, readFileSync, readdirSync, realpathSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { ProcessIdentity } from "../model/vm.ts";
import { identityOf, isAlive, signalProcess } from "../util/process-identity.ts";

/**
 * TMPDIR of the build that has this scratch directory, which is there: without symbolic links, since
 * tar in mmdebstrap's fakechroot finds nothing below one.
 */
export function builderTemporary(scratch: string): string {
  return join(realpathSync(scratch), "tmp");
}

/** Live processes of that build. */
function findBuilders(scratch: string): ProcessIdentity[] {
  if (!existsSync(scratch)) return []; // removed, which builds are ended before
  const mark = `\0TMPDIR=${builderTemporary(scratch)}\0`;
  const found: ProcessIdentity[] = [];
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      if (!`\0${readFileSync(`/proc/${name}/environ`, "latin1")}`.includes(mark)) continue;
    } catch {
      // EACCES, ENOENT, ESRCH: another user's, or gone: not of our build.
      continue;
    }
    const identity = identityOf(Number(name));
    if (identity !== undefined) found.push(identity);
  }
  return found;
}

/**
 * End all of them: TERM first, so that fakeroot's server removes its message queues, then KILL
 * for those that are still there after two seconds.
 */
export async function endBuilders(scratch: string): Promise<void> {
  for (const signal of ["SIGTERM", "SIGKILL"] as const) {
    const found = findBuilders(scratch);
    for (const process of found) signalProcess(process, signal);
    for (let waited = 0; found.some(isAlive) && waited < 2000; waited += 20) await sleep(20);
  }
}
