/** A pod's VM: made, found again, given its files, taken away. */
import { posix } from "node:path";
import { Readable } from "node:stream";
import { guestErrno } from "../../../agent/transport.ts";
import type { Vm } from "../../../client/vm.ts";
import type { Vmsan } from "../../../client/vmsan.ts";
import { VmsanError } from "../../../model/errors.ts";
import { addLines } from "../../../containers/lines.ts";
import { isLost } from "../../../containers/main.ts";
import type { FilledPlace } from "../files/volumes.ts";
import { fillPlaces } from "../files/writer.ts";
import type { PodPlan } from "../spec/plan.ts";

/** Files by which programs know what their host is called. */
const [HOSTNAME, HOSTS] = ["/etc/hostname", "/etc/hosts"];

/** Most bytes of a termination message. */
const MAX_MESSAGE = 4096;
/** How long it is waited for, in milliseconds. */
const MESSAGE_MS = 10_000;

/**
 * Have a guest be as its pod wants it: files, names of hosts, and a root that nobody writes to.
 * @param message the file of its last words, if it needs one
 */
export async function furnish(
  vm: Vm,
  plan: PodPlan,
  message: readonly FilledPlace[],
  signal?: AbortSignal,
): Promise<void> {
  const { files, sealed } = plan;
  await fillPlaces(vm, files.places, signal);
  try {
    await fillPlaces(vm, message, signal);
  } catch (error) {
    // Where nothing can be mounted (a device, a link that is not root's) no words are left.
    if (!(error instanceof VmsanError) || error.code !== "ERR_AGENT_MOUNT") throw error;
  }
  await nameHosts(vm, plan);
  if (sealed) await vm.sealRoot();
}

/**
 * Have the files of names say what the guest is called, as its kernel does, and which hosts its pod wants. What the pod mounts in
 * their place stays, and what its image has there, as far as the guest's own name goes.
 */
async function nameHosts(vm: Vm, { hostname, hosts, files }: PodPlan): Promise<void> {
  // Of the fake driver's guests they are this host's files.
  if (vm.view.driver === "fake") return;
  const mounted = [...files.places, ...files.mounts].map(({ target }) => target);
  const isMounted = (path: string): boolean =>
    mounted.some((target) => target === path || path.startsWith(`${target}/`));
  const withHosts = !isMounted(HOSTS);
  if (hostname !== undefined) {
    try {
      if (!isMounted(HOSTNAME)) {
        const source = Readable.from([Buffer.from(`${hostname}\n`)]);
        await vm.writeFile(HOSTNAME, source, { user: "root", inPlace: true });
      }
      if (withHosts) await addLines(vm, HOSTS, [`127.0.1.1\t${hostname}`]);
    } catch (error) {
      if (guestErrno(error) === undefined) throw error;
    }
  }
  if (withHosts) await addLines(vm, HOSTS, hosts);
}

/** Have a VM run that is there: woken, let go on, or booted. @returns whether it was booted */
export async function ensureRuns(vm: Vm): Promise<boolean> {
  const { status } = await vm.refresh();
  if (status === "running") return false;
  if (status === "paused" || status === "suspended") {
    await vm.resume();
    return false;
  }
  await vm.start();
  return true;
}

/** Remove a VM with its disk; one that is no more is no failure. */
export async function removeVm(vmsan: Vmsan, id: string): Promise<void> {
  try {
    await vmsan.remove(id, { force: true });
  } catch (error) {
    if (!isLost(error)) throw error;
  }
}

/** The empty file, for everybody to write to, that a container's last words are read from. */
export function messageFile(path: string): FilledPlace[] {
  const target = posix.resolve("/", path);
  const files = [{ path: "message", mode: 0o666, bytes: Buffer.alloc(0) }];
  return target === "/" ? [] : [{ target, shape: "file", files, writable: true }];
}

/**
 * What a container has left to be read of its end; undefined: nothing. It is read with the rights of who has run there, and a link
 * is nothing: else it could show what its user may not read.
 */
export async function terminationMessage(
  vm: Pick<Vm, "readFile">,
  path: string,
): Promise<string | undefined> {
  const parts: Buffer[] = [];
  let size = 0;
  // The file is the guest's: it may have no end, and its agent may never answer.
  const enough = new AbortController();
  const signal = AbortSignal.any([enough.signal, AbortSignal.timeout(MESSAGE_MS)]);
  try {
    await vm.readFile(
      path,
      (bytes) => {
        if (size < MAX_MESSAGE) parts.push(Buffer.from(bytes));
        size += bytes.length;
        if (size > MAX_MESSAGE) enough.abort();
      },
      { noFollow: true, signal },
    );
  } catch (error) {
    // Most leave none; one whose VM has gone can leave none.
    if (!signal.aborted && !(error instanceof VmsanError)) throw error;
    if (!enough.signal.aborted) return undefined;
  }
  const text = Buffer.concat(parts).subarray(0, MAX_MESSAGE).toString("utf8");
  return text === "" ? undefined : text;
}
