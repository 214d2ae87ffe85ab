/** Empty disks for single VMs: sparse, made in milliseconds. */
import { randomUUID } from "node:crypto";
import { rmSync } from "node:fs";
import { ImageFile } from "./image-file.ts";
import { FileTree, PLAIN_DIRECTORY, ROOT } from "../util/file-tree/file-tree.ts";
import { Ext4Writer } from "./writer.ts";

/** What an empty disk should be. */
export interface EmptyDiskOptions {
  /** Bytes, a multiple of 4096. */
  sizeBytes: number;
  /** With a journal; true for anything a VM writes to. */
  journal: boolean;
  /** Default: a random one. The same UUID gives the same bytes. */
  uuid?: string;
  /** Volume label, at most 16 bytes. */
  label?: string;
  /** Empty directories of root's in its root, mode 0755. */
  directories?: readonly string[];
}

/** The 16 bytes of a UUID in its text form. */
function uuidBytes(uuid: string): Uint8Array {
  const bytes = Buffer.from(uuid.replaceAll("-", ""), "hex");
  if (bytes.length !== 16) throw new RangeError(`not a UUID: ${uuid}`);
  return bytes;
}

/**
 * Make an empty ext4 file system at `path`, which must not exist. Costs a few hundred kilobytes
 * and milliseconds, whatever its size; it is not synced (an empty disk is cheap to make again).
 * Throws ERR_DISK_SIZE or ERR_DISK_LABEL, and leaves nothing behind on failure.
 */
export function createEmptyDisk(path: string, options: EmptyDiskOptions): Promise<void> {
  return new Promise((resolve) => {
    const uuid = uuidBytes(options.uuid ?? randomUUID());
    const file = new ImageFile(path, options.sizeBytes);
    try {
      const writer = new Ext4Writer(file, {
        sizeBytes: options.sizeBytes,
        journal: options.journal,
        uuid,
        hashSeed: uuid,
        ...(options.label === undefined ? {} : { label: options.label }),
      });
      const tree = new FileTree();
      const mtime = Math.floor(Date.now() / 1000);
      for (const name of options.directories ?? []) {
        tree.link(ROOT, name, tree.add({ ...PLAIN_DIRECTORY, mtime }));
      }
      writer.finish(tree);
      file.close();
    } catch (error) {
      file.close();
      rmSync(path, { force: true });
      throw error;
    }
    resolve();
  });
}
