/**
 * Names for what is being built: beside the output, on the same file system, so that renaming puts it
 * in place. They say whose they are, so that what a killed process left is found and removed when
 * the same output is built again.
 */
import { randomBytes } from "node:crypto";
import { readdir, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { bootId, identityOf, isAlive } from "../util/process-identity.ts";

/** `.NAME.building-PID-STARTTIME-BOOT-RANDOM` */
const SUFFIX = /^building-(\d{1,10})-(\d{1,20})-([0-9a-f]{8})-[0-9a-f]{8}$/;

const boot = (): string => bootId().slice(0, 8);

/** Does the process that a name's end names still run? */
function isInUse(pid: string, startTime: string, bootName: string): boolean {
  if (bootName !== boot()) return false;
  return isAlive({ pid: Number(pid), startTime: Number(startTime), bootId: bootId() });
}

/** A fresh path to build `output` at; what dead processes left of it is removed first. */
export async function asidePath(output: string): Promise<string> {
  const dir = dirname(output);
  const prefix = `.${basename(output)}.`;
  for (const name of await readdir(dir)) {
    if (!name.startsWith(prefix)) continue;
    const [, pid = "", startTime = "", bootName = ""] =
      SUFFIX.exec(name.slice(prefix.length)) ?? [];
    if (pid === "" || isInUse(pid, startTime, bootName)) continue;
    await rm(join(dir, name), { recursive: true, force: true });
  }
  const { pid, startTime } = identityOf(process.pid) ?? { pid: process.pid, startTime: 0 };
  const random = randomBytes(4).toString("hex");
  return join(dir, `${prefix}building-${pid}-${startTime}-${boot()}-${random}`);
}
