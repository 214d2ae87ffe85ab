/** A path in a disk image, as far as it leads without following links. */
import { Ext4Reader, type FoundKind } from "./reader.ts";

/** The last thing on the way to a path. */
export interface Found {
  kind: FoundKind;
  /** Where it lies: the path itself, or what is in its way. */
  path: string;
  /** Where a link leads. */
  target: string;
}

/**
 * Look up an absolute path in an image that this writer has made.
 * @returns what is there, or the first thing on the way that is no directory; undefined when the
 *   path ends before, or the image is another program's
 */
export function lookup(image: string, path: string): Found | undefined {
  let reader: Ext4Reader;
  try {
    reader = new Ext4Reader(image);
  } catch (error) {
    if (error instanceof RangeError) return undefined;
    throw error;
  }
  try {
    return reader.lookup(path.split("/").filter((part) => part !== ""));
  } catch (error) {
    if (error instanceof RangeError) return undefined;
    throw error;
  } finally {
    reader.close();
  }
}
