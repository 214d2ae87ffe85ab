/**
 * Unprivileged user ids, one for each VM, so that a VMM that a guest has broken out to can
 * touch no other VM. A claim is a file named after the id that holds the VM's name; it
 * survives crashes and is given back by the VM's clean-up.
 */
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { VmsanError, errnoOf } from "../model/errors.ts";
import { withLock } from "../util/lock.ts";

/** A range of user ids (and group ids of the same numbers). */
export interface UidRange {
  first: number;
  count: number;
}

/**
 * Ids that nothing else hands out: above systemd's container range, below 2^31; in a user
 * namespace of 65,536 ids, ones between people and systemd's own.
 */
const candidates: readonly UidRange[] = [
  { first: 1_900_000_000, count: 65_536 },
  { first: 50_000, count: 9_000 },
];

/** Parse /proc/PID/uid_map: which ids exist in this user namespace. */
export function parseIdMap(text: string): UidRange[] {
  return text
    .split("\n")
    .map((line) => line.trim().split(/\s+/).map(Number))
    .filter((fields) => fields.length === 3)
    .map(([first = 0, , count = 0]) => ({ first, count }));
}

/** Whether every id of a range exists here. */
function isMapped(range: UidRange, map: readonly UidRange[]): boolean {
  return map.some(
    (part) => part.first <= range.first && range.first + range.count <= part.first + part.count,
  );
}

/** The default range that exists in this user namespace; undefined when none does. */
export function defaultUidRange(
  uidMap = readFileSync("/proc/self/uid_map", "utf8"),
  gidMap = readFileSync("/proc/self/gid_map", "utf8"),
): UidRange | undefined {
  const [uids, gids] = [parseIdMap(uidMap), parseIdMap(gidMap)];
  return candidates.find((range) => isMapped(range, uids) && isMapped(range, gids));
}

/** Claims by id. */
async function claims(dir: string): Promise<Map<number, string>> {
  const found = new Map<number, string>();
  for (const name of await readdir(dir)) {
    if (!/^\d+$/.test(name)) continue;
    found.set(Number(name), (await readFile(join(dir, name), "utf8")).trim());
  }
  return found;
}

/**
 * The id of this VM: the one it has already, else a free one.
 * Throws ERR_VMM_UIDS when the range is used up.
 */
export async function claimUid(dir: string, range: UidRange, vm: string): Promise<number> {
  await mkdir(dir, { recursive: true, mode: 0o700 });
  return await withLock(join(dir, ".lock"), async () => {
    const taken = await claims(dir);
    for (const [uid, owner] of taken) {
      if (owner === vm && uid >= range.first && uid < range.first + range.count) return uid;
    }
    for (let uid = range.first; uid < range.first + range.count; uid++) {
      if (taken.has(uid)) continue;
      await writeFile(join(dir, String(uid)), `${vm}\n`, { flag: "wx", flush: true });
      return uid;
    }
    throw new VmsanError({
      code: "ERR_VMM_UIDS",
      message: `Cannot give the VM ${vm} a user id of its own`,
      why: `All ${range.count} ids from ${range.first} on are in use.`,
      fix: "Remove VMs, or configure a larger range of user ids.",
    });
  });
}

/** Give back the ids of a VM; those that it has not are no error. */
export async function releaseUids(dir: string, vm: string): Promise<void> {
  try {
    for (const [uid, owner] of await claims(dir)) {
      if (owner === vm) await rm(join(dir, String(uid)), { force: true });
    }
  } catch (error) {
    // No VM has ever claimed one.
    if (errnoOf(error) !== "ENOENT") throw error;
  }
}

/** VMs that hold an id. */
export async function uidHolders(dir: string): Promise<Set<string>> {
  try {
    return new Set((await claims(dir)).values());
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return new Set();
    throw error;
  }
}
