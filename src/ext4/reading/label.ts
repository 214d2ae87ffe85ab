/** The label of a file system that nobody has mounted: read, and written again. */
import { open } from "node:fs/promises";
import { INCOMPAT, SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE } from "../constants.ts";
import { decodeSuperblock, sealSuperblock } from "../superblock.ts";

/** What a look at a file system's first superblock gives. */
export interface FileSystemState {
  label: string;
  /** Bytes that the file system takes. */
  sizeBytes: number;
  /** Its journal holds changes that are not in their places yet: whoever wrote last was cut off. */
  needsRecovery: boolean;
}

/** Look at an ext4 image; undefined when it is none, or its superblock is damaged. */
export async function readState(path: string): Promise<FileSystemState | undefined> {
  const file = await open(path, "r");
  try {
    const bytes = Buffer.alloc(SUPERBLOCK_SIZE);
    const { bytesRead } = await file.read(bytes, 0, bytes.length, SUPERBLOCK_OFFSET);
    const sb = bytesRead === bytes.length ? decodeSuperblock(bytes) : undefined;
    if (sb === undefined) return undefined;
    return {
      label: sb.label,
      sizeBytes: sb.blocks * sb.blockSize,
      needsRecovery: (sb.incompat & INCOMPAT.recover) !== 0,
    };
  } finally {
    await file.close();
  }
}

/** Give an ext4 image another label, of at most 16 ASCII characters. */
export async function writeLabel(path: string, label: string): Promise<void> {
  const file = await open(path, "r+");
  try {
    const bytes = Buffer.alloc(SUPERBLOCK_SIZE);
    await file.read(bytes, 0, bytes.length, SUPERBLOCK_OFFSET);
    bytes.fill(0, 0x78, 0x88);
    bytes.write(label, 0x78, 16, "ascii");
    sealSuperblock(bytes);
    await file.write(bytes, 0, bytes.length, SUPERBLOCK_OFFSET);
    await file.datasync();
  } finally {
    await file.close();
  }
}
