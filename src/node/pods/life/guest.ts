/** A pod's VM: made, found again, given its files, taken away. */
import { posix } from "node:path";
import { Readable } from "node:stream";
import { encodeEnd, encodeEntry, padding } from "../../../agent/archive/pax.ts";
import type { Vm } from "../../../client/vm.ts";
import type { Vmsan } from "../../../client/vmsan.ts";
import { VmsanError } from "../../../model/errors.ts";
import { isLost } from "../../../containers/main.ts";
import type { GuestEntry } from "../spec/files.ts";

/** Most bytes of a termination message. */
const MAX_MESSAGE = 4096;
/** How long it is waited for, in milliseconds. */
const MESSAGE_MS = 10_000;
/** How long a guest may take with a pod's files, in milliseconds. */
const FILES_MS = 120_000;

/** Files of one directory, as an archive. */
function* archive(entries: readonly GuestEntry[]): Generator<Buffer> {
  const mtimeNs = BigInt(Date.now()) * 1_000_000n;
  for (const { path, mode, bytes } of entries) {
    if (path === "") continue;
    const name = Buffer.from(path);
    yield encodeEntry({ name, type: "file", mode, uid: 0, gid: 0, size: bytes.length, mtimeNs });
    yield bytes;
    yield Buffer.alloc(padding(bytes.length));
  }
  yield encodeEnd();
}

/**
 * Write what a pod's volumes hold into its guest: each directory for itself, wherever the image's links (as /var/run of
 * most) and what is mounted lead.
 */
export async function furnish(
  vm: Vm,
  entries: readonly GuestEntry[],
  wanted?: AbortSignal,
): Promise<void> {
  const limit = AbortSignal.timeout(FILES_MS);
  const signal = wanted === undefined ? limit : AbortSignal.any([wanted, limit]);
  for (const [root, inside] of Map.groupBy(entries, (entry) => entry.root)) {
    await vm.unpack(Readable.from(archive(inside)), root, { user: "root", parents: true, signal });
  }
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
export function messageFile(path: string): GuestEntry[] {
  const { dir: root, base } = posix.parse(posix.resolve("/", path));
  return base === "" ? [] : [{ root, path: base, mode: 0o666, bytes: Buffer.alloc(0) }];
}

/** What a container has left to be read of its end; undefined: nothing. */
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
      { user: "root", signal },
    );
  } catch (error) {
    // Most leave none; one whose VM has gone can leave none.
    if (!signal.aborted && !(error instanceof VmsanError)) throw error;
    if (!enough.signal.aborted) return undefined;
  }
  const text = Buffer.concat(parts).subarray(0, MAX_MESSAGE).toString("utf8");
  return text === "" ? undefined : text;
}
