/**
 * VMM processes that nobody remembers: a daemon that is killed between starting a process and
 * writing down its identity leaves one behind. It is known by its working directory, which is
 * the VM's, and by an argument that names the VM.
 */
import { readFileSync, readdirSync } from "node:fs";
import type { ProcessIdentity } from "../model/vm.ts";
import { isBelow, withoutLinks, workingDirectory } from "../util/files/directory.ts";
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

/** Whether a process has an argument. */
function hasArgument(pid: number, argument: string): boolean {
  return commandLine(pid).split("\0").includes(argument);
}

/** A process, as one look at all of them has found it. */
interface Seen {
  pid: number;
  /** Where it works, once that was asked for; undefined when it is gone or not ours to see. */
  cwd?: { path: string | undefined };
}

/** All processes, by each of their arguments. */
async function lookAtAll(): Promise<ReadonlyMap<string, Seen[]>> {
  const byArgument = new Map<string, Seen[]>();
  for (const [index, name] of readdirSync("/proc").entries()) {
    if (!/^\d+$/.test(name)) continue;
    if (index % AT_A_TIME === 0) await new Promise(setImmediate);
    const seen: Seen = { pid: Number(name) };
    for (const argument of new Set(commandLine(seen.pid).split("\0"))) {
      const others = byArgument.get(argument);
      if (others === undefined) byArgument.set(argument, [seen]);
      else others.push(seen);
    }
  }
  return byArgument;
}

/** The look that is under way, or was the last one; never rejects. */
let last: Promise<unknown> = Promise.resolve();
/** One that has not begun yet. */
let next: Promise<ReadonlyMap<string, Seen[]>> | undefined;

/**
 * A look that begins after this call, with all others who ask for one meanwhile: for each of a thousand VMs that
 * end together a look of its own would be at a thousand processes.
 */
function look(): Promise<ReadonlyMap<string, Seen[]>> {
  if (next !== undefined) return next;
  const look = last.then(async () => {
    next = undefined;
    return await lookAtAll();
  });
  next = look;
  last = look.catch(() => undefined);
  return look;
}

/** Processes that have `argument` and work in `dir` or below it. */
export async function findLeftovers(dir: string, argument: string): Promise<ProcessIdentity[]> {
  const real = withoutLinks(dir);
  const candidates = (await look()).get(argument) ?? [];
  const found = candidates.filter((seen) => {
    seen.cwd ??= { path: workingDirectory(seen.pid) };
    return isBelow(seen.cwd.path, dir, real);
  });
  return found.flatMap(({ pid }) => {
    const identity = identityOf(pid);
    // Looked at again: the number may be another process's by now.
    const isIt = hasArgument(pid, argument) && isBelow(workingDirectory(pid), dir, real);
    return identity !== undefined && isIt ? [identity] : [];
  });
}

/** Kill such processes and wait for their end; gives the process ids of those that were there. */
export async function killLeftovers(dir: string, argument: string): Promise<number[]> {
  const found = await findLeftovers(dir, argument);
  for (const identity of found) await killAndWait(identity);
  return found.map((identity) => identity.pid);
}
