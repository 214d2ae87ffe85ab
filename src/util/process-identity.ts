/** Processes that cannot be confused with a later one of the same number. */
import { readFileSync, readdirSync } from "node:fs";
import type { ProcessIdentity } from "../model/vm.ts";

let cachedBootId: string | undefined;

/** This boot's identifier. */
export function bootId(): string {
  cachedBootId ??= readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  return cachedBootId;
}

interface ProcStat {
  state: string;
  startTime: number;
}

/**
 * The fields of /proc/…/stat that matter here; undefined when there is no such process.
 * @param task a process, or `PID/task/TID`
 */
function readStat(task: number | string): ProcStat | undefined {
  let text: string;
  try {
    text = readFileSync(`/proc/${task}/stat`, "utf8");
  } catch {
    // ENOENT or ESRCH: there is no such process, which is the answer.
    return undefined;
  }
  // The command's name (field 2) may hold spaces and parentheses: count from its last ')'.
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return { state: fields[0] ?? "", startTime: Number(fields[19]) };
}

/** Identity of a live process; undefined when it is gone or a zombie. */
export function identityOf(pid: number): ProcessIdentity | undefined {
  const stat = readStat(pid);
  if (stat === undefined || stat.state === "Z" || stat.state === "X") return undefined;
  return { pid, startTime: stat.startTime, bootId: bootId() };
}

/** Whether exactly that process still runs. */
export function isAlive(identity: ProcessIdentity): boolean {
  const now = identityOf(identity.pid);
  return (
    now !== undefined && now.startTime === identity.startTime && now.bootId === identity.bootId
  );
}

/** Whether no thread of a process runs any more: SIGSTOP reaches them one after the other. */
export function isStopped({ pid }: ProcessIdentity): boolean {
  let threads: string[];
  try {
    threads = readdirSync(`/proc/${pid}/task`);
  } catch {
    // ENOENT: it is gone.
    return true;
  }
  return threads.every((thread) => {
    const state = readStat(`${pid}/task/${thread}`)?.state;
    return state === undefined || "TtZX".includes(state);
  });
}

/** Signal exactly that process; false when it is gone. */
export function signalProcess(identity: ProcessIdentity, signal: NodeJS.Signals): boolean {
  if (!isAlive(identity)) return false;
  try {
    return process.kill(identity.pid, signal);
  } catch {
    // ESRCH: it ended between the look and the signal.
    return false;
  }
}
