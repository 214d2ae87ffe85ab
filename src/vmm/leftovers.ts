/**
 * VMM processes that nobody remembers: a daemon that is killed between starting a process and
 * writing down its identity leaves one behind. It is known by its working directory, which is
 * the VM's, and by an argument that names the VM.
 */
import { readFileSync, readdirSync } from "node:fs";
import type { ProcessIdentity } from "../model/vm.ts";
import { withoutLinks, worksIn } from "../util/directory.ts";
import { identityOf } from "../util/process-identity.ts";
import { killAndWait } from "./exit.ts";

/** How many processes are looked at before others of this process have their turn. */
const AT_A_TIME = 128;

/** A process's arguments, each with a NUL behind it; empty for one that is gone. */
function commandLine(pid: number): string {
  try {
    // Not by promises: the kernel answers at once, and those take ten times as long for it.
    return readFileSync(`/proc/${pid}/cmdline`, "utf8");
  } catch {
    // ENOENT, ESRCH: it has ended; EACCES: another user's, so none that we could have started.
    return "";
  }
}

/** Processes that have `argument` and work in `dir` or below it. */
export async function findLeftovers(dir: string, argument: string): Promise<ProcessIdentity[]> {
  const found: ProcessIdentity[] = [];
  const real = withoutLinks(dir);
  for (const [index, name] of readdirSync("/proc").entries()) {
    if (!/^\d+$/.test(name)) continue;
    if (index % AT_A_TIME === 0) await new Promise(setImmediate);
    const pid = Number(name);
    if (!commandLine(pid).split("\0").includes(argument) || !worksIn(pid, dir, real)) continue;
    const identity = identityOf(pid);
    if (identity !== undefined) found.push(identity);
  }
  return found;
}

/** Kill such processes and wait for their end; gives the process ids of those that were there. */
export async function killLeftovers(dir: string, argument: string): Promise<number[]> {
  const found = await findLeftovers(dir, argument);
  for (const identity of found) await killAndWait(identity);
  return found.map((identity) => identity.pid);
}
