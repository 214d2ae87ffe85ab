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

/** Continue a CRC-32C with one little-endian 32-bit number. */
export function crc32cWord(crc: number, value: number): number {
  const word = crc ^ value;
  return (
    ((T3[word & 0xff] ?? 0) ^
      (T2[(word >>> 8) & 0xff] ?? 0) ^
      (T1[(word >>> 16) & 0xff] ?? 0) ^
      (T0[word >>> 24] ?? 0)) >>>
    0
  );
}

/** By number of zero bytes: what they make of each value of each byte of a CRC. */
const zeroTables = new Map<number, Int32Array>();

/** What `count` zero bytes make of the values of a CRC: 256 for each of its bytes, lowest first. */
function makeZeroTable(count: number): Int32Array {
  const table = new Int32Array(1024);
  for (let byte = 0; byte < 4; byte++) {
    for (let value = 0; value < 256; value++) {
      let crc = value << (8 * byte);
      for (let i = 0; i < count; i++) crc = (T0[crc & 0xff] ?? 0) ^ (crc >>> 8);
      table[256 * byte + value] = crc;
    }
  }
  return table;
}

/** Continue a CRC-32C with zero bytes; quick for a count that is used again and again. */
export function crc32cZeros(crc: number, count: number): number {
  let table = zeroTables.get(count);
  if (table === undefined) zeroTables.set(count, (table = makeZeroTable(count)));
  return (
    ((table[crc & 0xff] ?? 0) ^
      (table[256 + ((crc >>> 8) & 0xff)] ?? 0) ^
      (table[512 + ((crc >>> 16) & 0xff)] ?? 0) ^
      (table[768 + (crc >>> 24)] ?? 0)) >>>
    0
  );
}
