/**
 * VMM processes that nobody remembers: a daemon that is killed between starting a process and
 * writing down its identity leaves one behind. It is known by its working directory, which is
 * the VM's, and by an argument that names the VM.
 */
import { readdir, readFile } from "node:fs/promises";
import type { ProcessIdentity } from "../model/vm.ts";
import { worksIn } from "../util/directory.ts";
import { identityOf } from "../util/process-identity.ts";
import { killAndWait } from "./exit.ts";

/** Processes that have `argument` and work in `dir` or below it. */
export async function findLeftovers(dir: string, argument: string): Promise<ProcessIdentity[]> {
  const found: ProcessIdentity[] = [];
  for (const name of await readdir("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    // ENOENT, ESRCH: it has ended; EACCES: another user's, so none that we could have started.
    const text = await readFile(`/proc/${name}/cmdline`, "utf8").catch(() => "");
    const pid = Number(name);
    if (!text.split("\0").includes(argument) || !worksIn(pid, dir)) continue;
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
