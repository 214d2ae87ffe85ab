/**
 * Has files of a pod's volumes be in its guest: an archive for each place, which the agent there mounts from memory. A whole volume
 * is changed at one instant, as the kubelet changes it, so that programs which watch one see it.
 */
import { posix } from "node:path";
import { Readable } from "node:stream";
import { encodeEnd, encodeEntry, padding } from "../../../agent/archive/pax.ts";
import type { Vm } from "../../../client/vm.ts";
import type { FilledPlace, VolumeFile } from "./volumes.ts";

/** How long a guest may take with a pod's files, in milliseconds. */
const FILES_MS = 120_000;
const DIRECTORY_MODE = 0o755;
/** What is made in a directory of a group is the group's. */
const GROUP_DIRECTORY_MODE = 0o2755;

/** Directories that a volume's files need, outer ones first. */
function directoriesOf(files: readonly VolumeFile[]): string[] {
  const all = new Set<string>();
  for (const { path } of files) {
    for (let dir = posix.dirname(path); dir !== "."; dir = posix.dirname(dir)) all.add(dir);
  }
  return [...all].toSorted();
}

function* archive(files: readonly VolumeFile[], mode: number, gid = 0): Generator<Buffer> {
  const common = { uid: 0, mtimeNs: BigInt(Date.now()) * 1_000_000n };
  for (const path of directoriesOf(files)) {
    yield encodeEntry({ ...common, name: Buffer.from(path), mode, gid, type: "dir", size: 0 });
  }
  for (const { path, bytes, ...file } of files) {
    const what = { name: Buffer.from(path), mode: file.mode, gid: file.gid ?? 0 };
    yield encodeEntry({ ...common, ...what, type: "file", size: bytes.length });
    yield bytes;
    yield Buffer.alloc(padding(bytes.length));
  }
  yield encodeEnd();
}

/** Have a pod's files be in its guest as they are to be. */
export async function fillPlaces(
  vm: Pick<Vm, "fill">,
  places: readonly FilledPlace[],
  wanted?: AbortSignal,
): Promise<void> {
  const late = AbortSignal.timeout(FILES_MS);
  const signal = wanted === undefined ? late : AbortSignal.any([wanted, late]);
  for (const { target, shape, files, gid, writable } of places) {
    const mode = gid === undefined ? DIRECTORY_MODE : GROUP_DIRECTORY_MODE;
    await vm.fill(Readable.from(archive(files, mode, gid)), target, {
      shape,
      mode,
      signal,
      ...(gid === undefined ? {} : { gid }),
      ...(writable === undefined ? {} : { writable }),
    });
  }
}
