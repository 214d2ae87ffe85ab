/** What a process of this host uses, as /proc tells. */
import { readFileSync } from "node:fs";

/** Milliseconds of a clock tick of /proc (USER_HZ is 100 on all Linux that Node runs on). */
const TICK_MS = 10;
/** Bytes of a page on the machines that vmsan runs on with such kernels as Debian's. */
const PAGE = 4096;

/** A file of a process; undefined when it is gone, or its namespace is another user's. */
function read(pid: number, name: string): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/${name}`, "utf8");
  } catch {
    // ENOENT, ESRCH: it has ended, which others notice. EACCES: it is not for us to know.
    return undefined;
  }
}

/** Processor time that a process has used, in milliseconds; undefined when it is gone. */
export function cpuOf(pid: number): number | undefined {
  const text = read(pid, "stat");
  if (text === undefined) return undefined;
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * TICK_MS;
}

/** Bytes of a process that are in RAM; undefined when it is gone. */
export function residentOf(pid: number): number | undefined {
  const pages = read(pid, "statm")?.split(" ")[1];
  return pages === undefined ? undefined : Number(pages) * PAGE;
}

/** Bytes that a device of a process's network namespace has received and sent. */
export function trafficOf(
  pid: number,
  device: string,
): { receivedBytes: number; sentBytes: number } | undefined {
  const line = read(pid, "net/dev")
    ?.split("\n")
    .find((each) => each.trimStart().startsWith(`${device}:`));
  const fields = line
    ?.slice(line.indexOf(":") + 1)
    .trim()
    .split(/\s+/);
  if (fields === undefined) return undefined;
  return { receivedBytes: Number(fields[0]), sentBytes: Number(fields[8]) };
}
