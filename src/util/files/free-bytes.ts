/** Room in file systems. */
import { statfs } from "node:fs/promises";

/** Bytes that a directory's file system has free for this user. */
export async function freeBytes(dir: string): Promise<number> {
  const { bavail, bsize } = await statfs(dir);
  return bavail * bsize;
}
