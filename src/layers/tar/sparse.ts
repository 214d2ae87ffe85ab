/** Sparse files in tar archives: GNU's old headers and the PAX forms 0.0, 0.1 and 1.0. */
import { layerError } from "../errors.ts";
import { numeric, RECORD } from "./header.ts";

/** Stored pieces of a sparse file: pairs of offset and length, ascending; the rest is zeros. */
export type SparseMap = readonly number[];

/** The error for a map that makes no sense. */
export function badSparse(why: string): Error {
  return layerError("TAR_SPARSE", "Cannot read a sparse file of a layer", why);
}

/**
 * Check a map against the file's size and the bytes stored for it.
 * Throws ERR_LAYER_TAR_SPARSE unless pieces ascend, do not overlap, and add up.
 */
export function checkSparse(map: SparseMap, size: number, stored: number): void {
  let end = 0;
  let sum = 0;
  for (let i = 0; i < map.length; i += 2) {
    const offset = map[i] ?? -1;
    const length = map[i + 1] ?? -1;
    if (offset < end || length < 0 || !Number.isSafeInteger(offset + length)) {
      throw badSparse("Its pieces overlap or are out of order.");
    }
    end = offset + length;
    sum += length;
  }
  if (end > size) throw badSparse("A piece lies behind the end of the file.");
  if (sum !== stored) throw badSparse(`It stores ${stored} bytes, but its map names ${sum}.`);
}

/** Entries of an old GNU header or of one of its extension blocks, until an unused one. */
export function takeOldEntries(block: Buffer, at: number, count: number, map: number[]): void {
  for (let i = 0; i < count; i++) {
    const from = at + i * 24;
    if (block[from] === 0) return;
    map.push(numeric(block, from, 12), numeric(block, from + 12, 12));
  }
}

/** Old GNU sparse: entries in the header itself, whether more blocks follow, and the real size. */
export function oldSparse(block: Buffer): { map: number[]; extended: boolean; size: number } {
  const map: number[] = [];
  takeOldEntries(block, 386, 4, map);
  return { map, extended: block[482] !== 0, size: numeric(block, 483, 12) };
}

/** Entries per extension block of old GNU sparse, and where its "more follows" byte lies. */
export const OLD_EXTENSION = { entries: 21, more: 504, bytes: RECORD } as const;

/** The map of PAX forms 0.0 and 0.1: numbers with commas. */
export function listedSparse(value: string, most: number): number[] {
  const map = value === "" ? [] : value.split(",").map((digits) => decimal(digits));
  if (map.length % 2 !== 0 || map.length > 2 * most) throw badSparse("Its map is malformed.");
  return map;
}

/** A non-negative decimal number. */
export function decimal(digits: string): number {
  const value = /^[0-9]{1,16}$/.test(digits) ? Number(digits) : Number.NaN;
  if (!Number.isSafeInteger(value)) throw badSparse("Its map holds something else than numbers.");
  return value;
}
