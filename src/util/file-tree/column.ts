/** Arrays of numbers that grow: what would be a field of many small objects. */

/** A column of numbers. */
export type Column = Uint8Array | Uint16Array | Uint32Array | Float64Array;

/** The column itself when it has room for `length` numbers, else a longer copy, zeros behind it. */
export function grow<C extends Column>(column: C, length: number): C {
  if (length <= column.length) return column;
  const make = column.constructor as new (length: number) => C;
  const longer = new make(Math.max(length, Math.ceil(column.length * 1.5), 256));
  longer.set(column);
  return longer;
}
