/**
 * VMM processes that nobody remembers: a daemon that is killed between starting a process and
 * writing down its identity leaves one behind. It is known by its working directory, which is
 * the VM's, and by an argument that names the VM.
 */
import { readdir, readFile, readlink } from "node:fs/promises";
import type { ProcessIdentity } from "../model/vm.ts";
import { identityOf } from "../util/process-identity.ts";
import { killAndWait } from "./exit.ts";

/** Arguments and working directory of a process; undefined when it is gone or not ours to see. */
async function lookAt(pid: string): Promise<{ argv: string[]; cwd: string } | undefined> {
  try {
    const argv = (await readFile(`/proc/${pid}/cmdline`, "utf8")).split("\0");
    return { argv, cwd: await readlink(`/proc/${pid}/cwd`) };
  } catch {
    // ENOENT, ESRCH: it has ended; EACCES: another user's, so none that we could have started.
    return undefined;
  }
}

/** Processes that have `argument` and work in `dir` or below it. */
export async function findLeftovers(dir: string, argument: string): Promise<ProcessIdentity[]> {
  const found: ProcessIdentity[] = [];
  for (const pid of await readdir("/proc")) {
    if (!/^\d+$/.test(pid)) continue;
    const seen = await lookAt(pid);
    if (seen === undefined || !seen.argv.includes(argument)) continue;
    const cwd = seen.cwd.replace(/ \(deleted\)$/, "");
    if (cwd !== dir && !cwd.startsWith(`${dir}/`)) continue;
    const identity = identityOf(Number(pid));
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
