/**
 * Writes files of a pod's volumes into its guest. A whole volume is changed at one instant, as the kubelet changes it, so
 * that programs which watch one see it: files lie in a directory of their own, `..data` is a link to that one, and
 * each name of the volume is a link through it. The next state gets another directory, and `..data` is exchanged.
 */
import { randomInt } from "node:crypto";
import { posix } from "node:path";
import { Readable } from "node:stream";
import { encodeEnd, encodeEntry, padding } from "../../../agent/archive/pax.ts";
import { listFiles, moveFile, removeFile } from "../../../agent/files.ts";
import type { FileEntry } from "../../../agent/files.ts";
import { guestErrno } from "../../../agent/transport.ts";
import type { Vm } from "../../../client/vm.ts";
import type { FileVolume, GuestEntry, VolumeFile } from "./volumes.ts";

/** How long a guest may take with a pod's files, in milliseconds. */
const FILES_MS = 120_000;
/** The link to the files as they are now, and the next one before it takes its place. */
const DATA = "..data";
const NEXT = "..data_tmp";
/** Names of the directories that the link leads to. */
const STATE = /^\.\.\d{4}_[\d_.]+$/;
const DIRECTORY_MODE = 0o755;
/** What is made in a directory of a group is the group's. */
const GROUP_DIRECTORY_MODE = 0o2755;
const ROOT = { user: "root" };

/** Something in an archive: a file, a directory, a link. */
type Entry = { path: string; mode: number; gid?: number } & (
  | { bytes: Buffer }
  | { link: string }
  | object
);

function* archive(entries: Iterable<Entry>): Generator<Buffer> {
  const mtimeNs = BigInt(Date.now()) * 1_000_000n;
  for (const entry of entries) {
    const common = {
      name: Buffer.from(entry.path),
      mode: entry.mode,
      uid: 0,
      gid: entry.gid ?? 0,
      mtimeNs,
    };
    if ("bytes" in entry) {
      const { bytes } = entry;
      yield encodeEntry({ ...common, type: "file", size: bytes.length });
      yield bytes;
      yield Buffer.alloc(padding(bytes.length));
    } else if ("link" in entry) {
      yield encodeEntry({ ...common, type: "symlink", size: 0, link: Buffer.from(entry.link) });
    } else yield encodeEntry({ ...common, type: "dir", size: 0 });
  }
  yield encodeEnd();
}

async function unpack(
  vm: Vm,
  root: string,
  entries: readonly Entry[],
  signal: AbortSignal,
): Promise<void> {
  const owners = entries.some(({ gid }) => gid !== undefined);
  const options = { ...ROOT, parents: true, owners, signal };
  await vm.unpack(Readable.from(archive(entries)), root, options);
}

/** Directories that a volume's files need, outer ones first. */
function directoriesOf(files: readonly VolumeFile[]): string[] {
  const all = new Set<string>();
  for (const { path } of files) {
    for (let dir = posix.dirname(path); dir !== "."; dir = posix.dirname(dir)) all.add(dir);
  }
  return [...all].toSorted();
}

/** What is in a volume's directory now; nothing when it is not there. */
async function present(vm: Vm, target: string, signal: AbortSignal): Promise<FileEntry[]> {
  try {
    return await listFiles(vm.transport, target, { ...ROOT, recursive: false, signal });
  } catch (error) {
    if (guestErrno(error) === "ENOENT") return [];
    throw error;
  }
}

/** Have one volume be as it is to be, at one instant. */
async function writeVolume(
  vm: Vm,
  { target, files, gid }: FileVolume,
  signal: AbortSignal,
): Promise<void> {
  const now = new Date().toISOString().replaceAll(/[-:T]/g, "_").slice(0, 19);
  const state = `..${now}.${randomInt(1e9, 1e10 - 1)}`;
  const names = new Set(files.map(({ path }) => path.split("/", 1)[0] ?? ""));
  const group = gid === undefined ? {} : { gid };
  const mode = gid === undefined ? DIRECTORY_MODE : GROUP_DIRECTORY_MODE;
  const there = await present(vm, target, signal);
  const remove = async (name: string): Promise<void> => {
    try {
      await removeFile(vm.transport, `${target}/${name}`, { ...ROOT, recursive: true, signal });
    } catch (error) {
      // Who runs in the guest may have been first.
      if (guestErrno(error) !== "ENOENT") throw error;
    }
  };
  for (const { name, type } of there) {
    // The image's own, which the volume hides.
    if (type === "dir" && names.has(name.toString())) await remove(name.toString());
  }
  await unpack(
    vm,
    target,
    [
      { path: state, mode, ...group },
      ...directoriesOf(files).map((path) => ({ path: `${state}/${path}`, mode, ...group })),
      ...files.map((file) => ({ ...file, path: `${state}/${file.path}` })),
      { path: NEXT, mode: 0o777, link: state },
      // Those that are new lead nowhere until the next step.
      ...[...names].map((name) => ({ path: name, mode: 0o777, link: `${DATA}/${name}` })),
    ],
    signal,
  );
  const exchange = { ...ROOT, overwrite: true, signal };
  await moveFile(vm.transport, `${target}/${NEXT}`, `${target}/${DATA}`, exchange);
  for (const { name: bytes, type, target: link } of there) {
    const name = bytes.toString();
    const left = type === "symlink" && link?.toString() === `${DATA}/${name}` && !names.has(name);
    if (left || (type === "dir" && STATE.test(name))) await remove(name);
  }
}

/** Ends when that is not wanted any more, or has taken too long. */
function limitOf(wanted: AbortSignal | undefined): AbortSignal {
  const late = AbortSignal.timeout(FILES_MS);
  return wanted === undefined ? late : AbortSignal.any([wanted, late]);
}

/** Have a pod's volumes be in its guest as they are to be. */
export async function writeVolumes(
  vm: Vm,
  volumes: readonly FileVolume[],
  wanted?: AbortSignal,
): Promise<void> {
  const signal = limitOf(wanted);
  for (const volume of volumes) await writeVolume(vm, volume, signal);
}

/** Write single files, each directory for itself, wherever the image's links and what is mounted lead. */
export async function writeEntries(
  vm: Vm,
  entries: readonly GuestEntry[],
  wanted?: AbortSignal,
): Promise<void> {
  const signal = limitOf(wanted);
  for (const [root, inside] of Map.groupBy(entries, (entry) => entry.root)) {
    await unpack(vm, root, inside, signal);
  }
}
