/** PAX extended headers (POSIX.1-2001, `pax` interchange format): records "LENGTH KEY=VALUE\n". */
import { layerError } from "../errors.ts";

/** The error for records that do not follow the format. */
function badPax(why: string): Error {
  return layerError("TAR_PAX", "Cannot read a PAX header of a layer", why);
}

/**
 * Read the records of one header, later ones winning. Values are byte strings (latin1); an empty
 * value is kept: it deletes what a global header said.
 */
export function parsePax(bytes: Buffer, into: Map<string, string>): void {
  let at = 0;
  while (at < bytes.length) {
    // Some writers pad with NULs.
    if (bytes[at] === 0) return;
    const space = bytes.indexOf(0x20, at);
    const digits = space < 0 ? "" : bytes.toString("latin1", at, space);
    if (!/^[0-9]{1,10}$/.test(digits)) throw badPax("A record does not begin with its length.");
    const end = at + Number(digits);
    if (end > bytes.length || end <= space + 1 || bytes[end - 1] !== 0x0a) {
      throw badPax("A record's length is wrong.");
    }
    const equals = bytes.indexOf(0x3d, space + 1);
    if (equals < 0 || equals >= end) throw badPax("A record has no key.");
    const key = bytes.toString("latin1", space + 1, equals);
    if (key === "") throw badPax("A record has an empty key.");
    const value = bytes.toString("latin1", equals + 1, end - 1);
    // GNU.sparse 0.0 repeats its keys: they are one list.
    const list = key === "GNU.sparse.offset" || key === "GNU.sparse.numbytes";
    if (list) {
      const before = into.get("GNU.sparse.map");
      into.set("GNU.sparse.map", before === undefined ? value : `${before},${value}`);
    } else into.set(key, value);
    at = end;
  }
}

/** A whole number of a record, within bounds; undefined when the record is missing or empty. */
export function paxInteger(
  records: ReadonlyMap<string, string>,
  key: string,
  min: number,
): number | undefined {
  const value = records.get(key);
  if (value === undefined || value === "") return undefined;
  const number = /^-?[0-9]{1,17}$/.test(value) ? Number(value) : Number.NaN;
  if (!Number.isSafeInteger(number) || number < min) {
    throw badPax(`The record ${key} holds ${JSON.stringify(value.slice(0, 40))}.`);
  }
  return number;
}

/** A time of a record: seconds with any number of decimals, maybe negative. */
export function paxTime(
  records: ReadonlyMap<string, string>,
  key: string,
): { seconds: number; nsec: number } | undefined {
  const value = records.get(key);
  if (value === undefined || value === "") return undefined;
  const match = /^(-?)([0-9]{1,40})?(?:\.([0-9]*))?$/.exec(value);
  if (match === null || (match[2] === undefined && match[3] === undefined)) {
    throw badPax(`The record ${key} holds ${JSON.stringify(value.slice(0, 40))}.`);
  }
  const whole = Number(match[2] ?? "0");
  // Further digits are cut, as everyone does.
  const nsec = Number((match[3] ?? "").slice(0, 9).padEnd(9, "0"));
  if (match[1] !== "-") return { seconds: whole, nsec };
  return nsec === 0
    ? { seconds: -whole, nsec: 0 }
    : { seconds: -whole - 1, nsec: 1_000_000_000 - nsec };
}
