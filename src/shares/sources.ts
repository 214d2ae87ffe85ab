/**
 * shares/: directories and files of the host in guests. Takes what is to be shared and a VM's port, gives a
 * file server (Go, guest/internal/fileserver) that ends with the VM.
 *
 * sources.ts: what may be shared, checked before anything starts.
 */
import { access, constants, lstat, realpath, statfs } from "node:fs/promises";
import type { Mount } from "../model/mount.ts";
import { VmsanError, errnoOf, messageOf } from "../model/errors.ts";

/** Types of file systems that hold no files but handles of the kernel, by their magic number. */
const KERNEL_TYPES = new Set([
  0x9fa0, 0x62656572, 0x27e0eb, 0x63677270, 0x64626720, 0x74726163, 0x73636673, 0x62656570,
  0xcafe4a11, 0x1cd1, 0xde5e81e4, 0x42494e4d, 0xf97cff8c, 0x6165676c, 0x65735543,
]);

/** Directories whose whole content is the host's own. */
const WHOLE_HOST = new Map([
  ["/", "It is the whole host."],
  ["/dev", "Its devices would be the host's."],
]);

function refused(source: string, why: string, fix: string, cause?: unknown): VmsanError {
  const message = `Cannot share ${source}`;
  return new VmsanError({ code: "ERR_MOUNT_SOURCE", message, why, fix }, cause);
}

/** Whether `path` is `directory` or lies below it. */
function inside(path: string, directory: string): boolean {
  return path === directory || path.startsWith(`${directory}/`);
}

/** Check one source. @param own absolute path of VMSAN_DIR @returns whether it is a file */
async function checkSource(source: string, own: string): Promise<boolean> {
  const fix = "Give the path of a directory or file that is there and that you can read.";
  let real: string;
  try {
    real = await realpath(source);
  } catch (error) {
    const missing = errnoOf(error) === "ENOENT";
    const why = missing ? "There is no such directory." : messageOf(error);
    throw refused(source, why, missing ? `Make it first: mkdir -p ${source}` : fix, error);
  }
  const stat = await lstat(real);
  const file = stat.isFile();
  if (!file && !stat.isDirectory()) {
    throw refused(
      source,
      "It is neither a directory nor a regular file: what is behind a socket, a pipe or a device is the host's.",
      "Share a directory with files in it.",
    );
  }
  if (real !== source) {
    throw refused(
      source,
      "Its path leads through a symbolic link, which may lead elsewhere later.",
      `Give the path without it: ${real}`,
    );
  }
  const host = [...WHOLE_HOST].find(
    ([path]) => real === path || (path !== "/" && inside(real, path)),
  );
  if (host !== undefined) throw refused(source, host[1], "Share a directory with files in it.");
  if (inside(real, own)) {
    throw refused(
      source,
      `It lies in vmsan's own directory ${own}, whose keys and disks no guest may reach.`,
      "Share another directory.",
    );
  }
  if (KERNEL_TYPES.has((await statfs(real)).type)) {
    throw refused(
      source,
      "It lies in a file system of the kernel's own (as /proc and /sys are).",
      "Share a directory with files in it.",
    );
  }
  try {
    await access(real, file ? constants.R_OK : constants.R_OK | constants.X_OK);
  } catch (error) {
    throw refused(source, messageOf(error), fix, error);
  }
  return file;
}

/**
 * Check what is to be shared, and find out what of it are files.
 * @param own absolute path of VMSAN_DIR without links, which no guest may see
 * @throws ERR_MOUNT_SOURCE
 */
export async function checkSources(mounts: readonly Mount[], own: string): Promise<Mount[]> {
  const checked: Mount[] = [];
  for (const mount of mounts) {
    if (mount.kind !== "bind") checked.push(mount);
    else {
      const { file: _before, ...rest } = mount;
      checked.push(
        (await checkSource(mount.source, own)) ? { ...rest, file: true as const } : rest,
      );
    }
  }
  return checked;
}
