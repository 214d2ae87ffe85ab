/**
 * The directory that a jailed Firecracker sees as its root: made, filled with links to what the
 * VM needs (never copies where it can be avoided), found again, removed.
 */
import { chmod, chown, link, mkdir, open, readdir, readFile, rm, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { VmsanError, errnoOf, messageOf } from "../../model/errors.ts";
import type { ProcessIdentity, VmSpec } from "../../model/vm.ts";
import { identityOf } from "../../util/process-identity.ts";
import { runOk } from "../../util/run.ts";
import { hostIdOf } from "../host-id.ts";

/** Paths of a jail. */
export interface Jail {
  /** Given to the jailer as --chroot-base-dir. */
  base: string;
  /** What Firecracker sees as /. */
  root: string;
  /** File with the process id, written by the jailer. */
  pidFile: string;
}

/** Paths of a VM's jail; the jailer makes BASE/NAME/ID/root out of the program's name. */
export function jailOf(spec: VmSpec, firecracker: string): Jail {
  const base = join(spec.dir, "jail");
  const name = basename(firecracker);
  const root = join(base, name, hostIdOf(spec), "root");
  return { base, root, pidFile: join(root, `${name}.pid`) };
}

/** An ERR_VMM_JAIL error. */
function jailError(message: string, why: string, fix: string, cause?: unknown): VmsanError {
  return new VmsanError({ code: "ERR_VMM_JAIL", message, why, fix }, cause);
}

/** Mount options of the file system that holds a path, from /proc/self/mountinfo. */
export function mountOptions(mountinfo: string, path: string): string[] {
  let best = { length: -1, options: "" };
  for (const line of mountinfo.split("\n")) {
    const fields = line.split(" ");
    // Blanks in mount points are written as octal escapes.
    const point = (fields[4] ?? "").replaceAll(/\\(\d{3})/g, (_all, octal: string) =>
      String.fromCodePoint(Number.parseInt(octal, 8)),
    );
    const inside = point === "/" || path === point || path.startsWith(`${point}/`);
    // Later mounts hide earlier ones of the same place.
    if (point !== "" && inside && point.length >= best.length) {
      best = { length: point.length, options: fields[5] ?? "" };
    }
  }
  return best.options.split(",");
}

/** Refuse a place where the jail's device nodes would not work. */
export async function checkJailPlace(dir: string): Promise<void> {
  const options = mountOptions(await readFile("/proc/self/mountinfo", "utf8"), dir);
  const bad = ["nodev", "noexec"].find((option) => options.includes(option));
  if (bad === undefined) return;
  throw jailError(
    `Cannot make a jail in ${dir}`,
    `Its file system is mounted with ${bad}, so that ${bad === "nodev" ? "/dev/kvm" : "Firecracker"} would not work there.`,
    "Put VMSAN_DIR on a file system mounted with dev and exec.",
  );
}

/**
 * Make a file visible in a jail by a hard link.
 * @param writable whether the VMM writes to it: then another file system is refused, because a
 *   copy would lose what is written; a file that is only read is copied (as a reflink if possible)
 */
export async function placeFile(from: string, to: string, writable: boolean): Promise<void> {
  await mkdir(dirname(to), { recursive: true });
  try {
    await link(from, to);
  } catch (error) {
    if (errnoOf(error) !== "EXDEV" && errnoOf(error) !== "EMLINK") throw error;
    if (writable) {
      throw jailError(
        `Cannot put ${from} into a jail`,
        "It lies on another file system than the VM's directory.",
        "Keep volumes on the file system of VMSAN_DIR, or use --driver qemu.",
        error,
      );
    }
    const args = ["--reflink=auto", "--sparse=always", "--", from, to];
    await runOk("cp", args, "ERR_VMM_JAIL");
  }
}

/** Give a file to the jail's user, or make sure that it can read one that it shares. */
export async function grant(path: string, uid: number, writable: boolean): Promise<void> {
  if (writable) {
    await chown(path, uid, uid);
    await chmod(path, 0o600);
    return;
  }
  const { mode } = await stat(path);
  // The directories above are closed to everybody else, and the jail has only this link.
  if ((mode & 0o004) === 0) await chmod(path, mode | 0o444);
}

/** How many VMs are being loaded from a file at this moment, by its inode. */
const loading = new Map<string, number>();

/**
 * Close memory files again that {@link grant} opens to a jail's user, once the VMM has them open
 * and no other VM is being loaded from them.
 * @param paths of a snapshot's files, which have a link in each jail
 * @returns to be called when the VM is loaded, or is not going to be
 */
export async function lend(paths: readonly string[]): Promise<() => Promise<void>> {
  const lent: { path: string; inode: string }[] = [];
  for (const path of paths) {
    // ENOENT: nothing is loaded from a file that is not there, as others say.
    const info = await stat(path).catch(() => undefined);
    if (info === undefined) continue;
    const inode = `${info.dev}:${info.ino}`;
    loading.set(inode, (loading.get(inode) ?? 0) + 1);
    lent.push({ path, inode });
  }
  return async () => {
    for (const { path, inode } of lent) {
      const others = (loading.get(inode) ?? 1) - 1;
      loading.set(inode, others);
      if (others > 0) continue;
      loading.delete(inode);
      // ENOENT: the snapshot was removed meanwhile.
      await chmod(path, 0o600).catch(() => undefined);
    }
  };
}

/** An empty file of the jail's user, for logs. */
export async function ownedFile(path: string, uid: number): Promise<void> {
  const handle = await open(path, "w", 0o600);
  try {
    await handle.chown(uid, uid);
  } finally {
    await handle.close();
  }
}

/** The process id that the jailer wrote down; undefined when it has not. */
export async function readPidFile(jail: Jail): Promise<number | undefined> {
  try {
    const pid = Number((await readFile(jail.pidFile, "utf8")).trim());
    return Number.isInteger(pid) && pid > 1 ? pid : undefined;
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

/** Processes whose root directory is the jail's: all that run in it. */
export async function processesInJail(root: string): Promise<ProcessIdentity[]> {
  let jail: { dev: number; ino: number };
  try {
    jail = await stat(root);
  } catch (error) {
    if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ENOTDIR") return [];
    throw error;
  }
  const found: ProcessIdentity[] = [];
  for (const pid of await readdir("/proc")) {
    if (!/^\d+$/.test(pid)) continue;
    // ENOENT: it has ended; EACCES: another user's, so none that runs in a jail of ours.
    const seen = await stat(`/proc/${pid}/root/`).catch(() => undefined);
    if (seen === undefined || seen.dev !== jail.dev || seen.ino !== jail.ino) continue;
    const identity = identityOf(Number(pid));
    if (identity !== undefined) found.push(identity);
  }
  return found;
}

/** Remove a VM's jail; the reason when that fails. */
export async function removeJail(base: string): Promise<string | undefined> {
  try {
    await rm(base, { recursive: true, force: true });
    return undefined;
  } catch (error) {
    return messageOf(error);
  }
}
