/**
 * What dead processes of vmsan left in a VMSAN_DIR: VMMs whose VM is forgotten, directories of
 * VMs that were never recorded, their user ids, control groups and networks, temporary files.
 * Only what is certainly nobody's is named.
 */
import { access, mkdir, readdir, readFile, realpath, rm, stat } from "node:fs/promises";
import { connect } from "node:net";
import { basename, dirname, join } from "node:path";
import { errnoOf } from "../model/errors.ts";
import type { ProcessIdentity } from "../model/vm.ts";
import { createNetworkManager } from "../network/network.ts";
import { ASIDE } from "../util/atomic.ts";
import { isSameDirectory, workingDirectory } from "../util/files/directory.ts";
import { tryLock } from "../util/lock.ts";
import { isVmId } from "../util/names.ts";
import { networkHelperBinary } from "../util/package.ts";
import type { Layout } from "../util/paths.ts";
import { identityOf, isAlive } from "../util/process-identity.ts";
import { killAndWait } from "../vmm/exit.ts";
import { sweepHost } from "../vmm/sweep.ts";
import { uidClaims, uidDirectory } from "../vmm/uids.ts";

/** Something that can be removed. */
export type Remains =
  | { kind: "process"; what: string; process: ProcessIdentity }
  | { kind: "vm" | "temporary"; what: string; path: string }
  /** What its user id and its network lease stand for: control groups, namespaces, links, rules. */
  | { kind: "host"; what: string };

/** Milliseconds after which nobody is still writing a temporary file. */
const abandonedAfter = 24 * 3_600_000;

/** Whether somebody listens on a socket. */
async function isListening(path: string): Promise<boolean> {
  return await new Promise<boolean>((resolve) => {
    const socket = connect(path);
    const answer = (yes: boolean): void => {
      socket.destroy();
      resolve(yes);
    };
    socket.once("connect", () => answer(true));
    // ENOENT, ECONNREFUSED: nobody; EAGAIN: its queue is full, so somebody.
    socket.once("error", (error) => answer(errnoOf(error) === "EAGAIN"));
  });
}

/** Whether there is such a file. */
async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}

/** Names in a directory, none when there is no such directory. */
async function namesIn(dir: string): Promise<string[]> {
  try {
    return await readdir(dir);
  } catch (error) {
    if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ENOTDIR") return [];
    throw error;
  }
}

/** The VM whose directory a process works in; undefined for all other processes. */
async function vmOfProcess(vms: string, pid: string): Promise<string | undefined> {
  try {
    const cwd = workingDirectory(Number(pid)) ?? "";
    const real = await realpath(vms);
    if (!cwd.startsWith(`${real}/`)) return undefined;
    const id = cwd.slice(real.length + 1).split("/")[0] ?? "";
    // A user's shell that happens to stand there is no VMM: those name the VM in an argument.
    const argv = await readFile(`/proc/${pid}/cmdline`, "utf8");
    return isVmId(id) && argv.includes(id) ? id : undefined;
  } catch {
    // ENOENT, ESRCH, EACCES: it has ended, or it is another user's.
    return undefined;
  }
}

/** Processes of VMs that are not recorded. */
async function forgottenProcesses(vms: string): Promise<Remains[]> {
  const found: Remains[] = [];
  for (const pid of await readdir("/proc")) {
    if (!/^\d+$/.test(pid)) continue;
    const id = await vmOfProcess(vms, pid);
    if (id === undefined || (await exists(join(vms, id, "vm.json")))) continue;
    const process = identityOf(Number(pid));
    if (process !== undefined)
      found.push({ kind: "process", what: `process ${pid} of ${id}`, process });
  }
  return found;
}

/** The VMs that have a record. */
async function recordedVms(vms: string): Promise<Set<string>> {
  const recorded = new Set<string>();
  for (const id of (await namesIn(vms)).filter(isVmId))
    if (await exists(join(vms, id, "vm.json"))) recorded.add(id);
  return recorded;
}

/** User ids and networks of VMs that are not recorded. */
async function forgottenOnHost(layout: Layout): Promise<Remains[]> {
  const recorded = await recordedVms(layout.vms);
  const claimed = (await uidClaims(uidDirectory(layout.probes)))
    .filter(({ vmDir }) => isSameDirectory(dirname(vmDir), layout.vms))
    .filter(({ vmDir }) => !recorded.has(basename(vmDir)))
    .map(({ vm }) => ({ kind: "host" as const, what: `user id of ${vm}` }));
  const leased = (await namesIn(layout.network))
    .map((name) => name.replace(/\.json$/, ""))
    .filter((id) => isVmId(id) && !recorded.has(id))
    .map((id) => ({ kind: "host" as const, what: `network of ${id}` }));
  return [...claimed, ...leased];
}

/** Give back what {@link forgottenOnHost} found, as a daemon does at its start. */
async function sweepForgotten(layout: Layout): Promise<void> {
  await mkdir(layout.run, { recursive: true, mode: 0o700 });
  // Leases are one process's at a time: no daemon may begin meanwhile.
  const held = tryLock(layout.daemonLock);
  if (held === undefined) return;
  try {
    const live = await recordedVms(layout.vms);
    const isKnown = (id: string): boolean => live.has(id);
    const uidDir = uidDirectory(layout.probes);
    const host = await sweepHost({ uidDir, vmsDir: layout.vms, isKnown });
    const networks = createNetworkManager({ dir: layout.network, helper: networkHelperBinary() });
    const network = await networks.sweep(live);
    await networks.close();
    const failed = [...host.failed, ...network.failed];
    if (failed.length > 0)
      throw new Error(failed.map(({ what, why }) => `${what} stays: ${why}`).join("; "));
  } finally {
    held.release();
  }
}

/**
 * Look for remains. While a daemon runs, what VMs have is its own affair and not looked at.
 */
export async function findRemains(layout: Layout, signal: AbortSignal): Promise<Remains[]> {
  const found: Remains[] = [];
  if (!(await isListening(layout.socket))) {
    found.push(...(await forgottenProcesses(layout.vms)));
    for (const id of (await namesIn(layout.vms)).filter(isVmId)) {
      if (await exists(join(layout.vms, id, "vm.json"))) continue;
      found.push({ kind: "vm", what: `directory of ${id}`, path: join(layout.vms, id) });
    }
    found.push(...(await forgottenOnHost(layout)));
  }
  signal.throwIfAborted();
  const { kernels, runtimes, images, rootfs, initramfs, root } = layout;
  for (const dir of [root, kernels, runtimes, images, rootfs, initramfs]) {
    for (const name of await namesIn(dir)) {
      if (!name.startsWith(ASIDE)) continue;
      const path = join(dir, name);
      const at = await stat(path).catch(() => undefined); // gone meanwhile: in use
      if (at === undefined || Date.now() - at.mtimeMs < abandonedAfter) continue;
      found.push({ kind: "temporary", what: `${basename(dir)}/${name}`, path });
    }
  }
  return found;
}

/**
 * Remove them.
 * @returns a sentence for people
 */
export async function removeRemains(
  layout: Layout,
  remains: readonly Remains[],
  signal: AbortSignal,
): Promise<string> {
  for (const one of remains) {
    signal.throwIfAborted();
    if (one.kind === "process") {
      if (isAlive(one.process)) await killAndWait(one.process);
      continue;
    }
    if (one.kind === "host") continue;
    // A daemon may have started since, and may be making this very VM.
    if (one.kind === "vm" && (await isListening(layout.socket))) continue;
    await rm(one.path, { recursive: true, force: true });
  }
  if (remains.some(({ kind }) => kind === "host")) await sweepForgotten(layout);
  return `Removed: ${remains.map(({ what }) => what).join(", ")}.`;
}
