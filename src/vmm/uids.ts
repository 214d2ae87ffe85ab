/**
 * Unprivileged user ids, one for each VM, so that a VMM that a guest has broken out to can
 * touch no other VM. A claim is a file named after the id that names the VM and its directory; it
 * survives crashes and is given back by the VM's clean-up.
 */
import { accessSync, constants, mkdirSync, readFileSync } from "node:fs";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
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
function parseIdMap(text: string): UidRange[] {
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

/** Who holds an id. */
export interface UidClaim {
  uid: number;
  /** The VM's name on the host (host-id.ts). */
  vm: string;
  /** The VM's directory, which tells installations apart; empty when it is not known. */
  vmDir: string;
}

/**
 * Where ids are claimed: one place for the whole host where root may write it, so that two
 * installations never hand out the same id; else the installation's own.
 * @param stateDir the installation's own
 */
export function uidDirectory(stateDir: string): string {
  const shared = "/run/vmsan/uids";
  if (process.geteuid?.() !== 0) return join(stateDir, "uids");
  try {
    mkdirSync(shared, { recursive: true, mode: 0o700 });
    accessSync(shared, constants.W_OK);
    return shared;
  } catch (error) {
    // Root of a namespace or of a sandbox that has no /run of its own. ENOENT is what Node
    // says when it would have to make the parent too and the file system is read-only.
    const unusable = ["EACCES", "EROFS", "EPERM", "ENOENT"];
    if (unusable.includes(errnoOf(error) ?? "")) return join(stateDir, "uids");
    throw error;
  }
}

/** All claims. */
async function claims(dir: string): Promise<UidClaim[]> {
  const found: UidClaim[] = [];
  for (const name of await readdir(dir)) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const [vm = "", vmDir = ""] = (await readFile(join(dir, name), "utf8")).split("\n");
      found.push({ uid: Number(name), vm, vmDir });
    } catch (error) {
      // Given back meanwhile by another VM's clean-up, which takes no lock.
      if (errnoOf(error) !== "ENOENT") throw error;
    }
  }
  return found;
}

/**
 * The id of this VM: the one it has already, else a free one.
 * @param vm the VM's name on the host, which a copy does not share with its original
 * @param vmDir the VM's directory
 * Throws ERR_VMM_UIDS when the range is used up.
 */
export async function claimUid(
  dir: string,
  range: UidRange,
  vm: string,
  vmDir = "",
): Promise<number> {
  await mkdir(dir, { recursive: true, mode: 0o700 });
  return await withLock(join(dir, ".lock"), async () => {
    const taken = new Set<number>();
    for (const claim of await claims(dir)) {
      const { uid } = claim;
      if (claim.vm === vm && uid >= range.first && uid < range.first + range.count) return uid;
      taken.add(uid);
    }
    for (let uid = range.first; uid < range.first + range.count; uid++) {
      if (taken.has(uid)) continue;
      await writeFile(join(dir, String(uid)), `${vm}\n${vmDir}\n`, { flag: "wx", flush: true });
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
  for (const claim of await uidClaims(dir)) {
    if (claim.vm === vm) await rm(join(dir, String(claim.uid)), { force: true });
  }
}

/** Who holds ids; nobody before the first VM. */
export async function uidClaims(dir: string): Promise<UidClaim[]> {
  try {
    return await claims(dir);
  } catch (error) {
    // Nobody has ever claimed one.
    if (errnoOf(error) === "ENOENT") return [];
    throw error;
  }
}
