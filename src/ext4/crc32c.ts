/**
 * CRC-32C (Castagnoli), the checksum of ext4's metadata_csum: no final inversion, the caller
 * gives the running value (`0xffffffff` to begin with).
 */

const POLYNOMIAL = 0x82f63b78;

/** Eight tables, so that eight bytes are folded per step (slicing-by-8). */
function makeTables(): Int32Array[] {
  const tables = Array.from({ length: 8 }, () => new Int32Array(256));
  const [first] = tables;
  if (first === undefined) throw new RangeError("no tables");
  for (let i = 0; i < 256; i++) {
    let value = i;
    for (let bit = 0; bit < 8; bit++) {
      value = value & 1 ? (value >>> 1) ^ POLYNOMIAL : value >>> 1;
    }
    first[i] = value;
  }
  for (let t = 1; t < 8; t++) {
    const table = tables[t];
    const before = tables[t - 1];
    if (table === undefined || before === undefined) continue;
    for (let i = 0; i < 256; i++) {
      const value = before[i] ?? 0;
      table[i] = (value >>> 8) ^ (first[value & 0xff] ?? 0);
    }
  }
  return tables;
}

const [T0, T1, T2, T3, T4, T5, T6, T7] = makeTables() as [
  Int32Array,
  Int32Array,
  Int32Array,
  Int32Array,
  Int32Array,
  Int32Array,
  Int32Array,
  Int32Array,
];

/**
 * Continue a CRC-32C.
 * @param crc value so far; 0xffffffff at the start
 * @param start first byte, default 0
 * @param end behind the last byte, default the length
 * @returns the new value as an unsigned 32-bit number, not inverted
 */
export function crc32c(crc: number, bytes: Uint8Array, start = 0, end = bytes.length): number {
  let value = crc | 0;
  let at = start;
  // Every index below is inside its array: the byte index by the loop bound, the table index
  // by the mask. `?? 0` would cost a third of the speed, hence the assertions.
  /* oxlint-disable typescript/no-non-null-assertion */
  for (const last = end - 8; at <= last; at += 8) {
    value ^= bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
    value =
      T7[value & 0xff]! ^
      T6[(value >>> 8) & 0xff]! ^
      T5[(value >>> 16) & 0xff]! ^
      T4[value >>> 24]! ^
      T3[bytes[at + 4]!]! ^
      T2[bytes[at + 5]!]! ^
      T1[bytes[at + 6]!]! ^
      T0[bytes[at + 7]!]!;
  }
  for (; at < end; at++) value = T0[(value ^ bytes[at]!) & 0xff]! ^ (value >>> 8);
  /* oxlint-enable typescript/no-non-null-assertion */
  return value >>> 0;
}

const word = new Uint8Array(4);

/** Continue a CRC-32C with one little-endian 32-bit number. */
export function crc32cWord(crc: number, value: number): number {
  word[0] = value;
  word[1] = value >>> 8;
  word[2] = value >>> 16;
  word[3] = value >>> 24;
  return crc32c(crc, word);
}
