/** IPv4 and IPv6 addresses and CIDRs as numbers. Pure. */

/** An address: family and value. */
export interface Address {
  family: 4 | 6;
  value: bigint;
}

/** A CIDR: all addresses whose first `prefix` bits are those of `value`. */
export interface Cidr extends Address {
  prefix: number;
}

/** Bits in an address of a family. */
const width = (family: 4 | 6): number => (family === 4 ? 32 : 128);

/** Dotted decimal as four numbers; undefined when it is anything else (no octal, no short forms). */
function parseV4(text: string): bigint | undefined {
  const parts = text.split(".");
  if (parts.length !== 4) return undefined;
  let value = 0n;
  for (const part of parts) {
    if (!/^(0|[1-9]\d{0,2})$/.test(part) || Number(part) > 255) return undefined;
    value = value * 256n + BigInt(part);
  }
  return value;
}

/** Groups of one side of an IPv6 address; the last may be an IPv4 address. */
function parseGroups(text: string, mayEndV4: boolean): number[] | undefined {
  if (text === "") return [];
  const groups: number[] = [];
  const parts = text.split(":");
  for (const [index, part] of parts.entries()) {
    if (mayEndV4 && index === parts.length - 1 && part.includes(".")) {
      const v4 = parseV4(part);
      if (v4 === undefined) return undefined;
      groups.push(Number(v4 >> 16n), Number(v4 & 0xffffn));
    } else if (/^[0-9a-fA-F]{1,4}$/.test(part)) {
      groups.push(Number.parseInt(part, 16));
    } else {
      return undefined;
    }
  }
  return groups;
}

/** RFC 4291 text form, without zone. */
function parseV6(text: string): bigint | undefined {
  const halves = text.split("::");
  if (halves.length > 2) return undefined;
  const head = parseGroups(halves[0] ?? "", halves.length === 1);
  const tail = halves.length === 2 ? parseGroups(halves[1] ?? "", true) : [];
  if (head === undefined || tail === undefined) return undefined;
  const missing = 8 - head.length - tail.length;
  if (halves.length === 1 ? missing !== 0 : missing < 1) return undefined;
  const groups = [...head, ...Array.from({ length: missing }, () => 0), ...tail];
  return groups.reduce((value, group) => value * 65536n + BigInt(group), 0n);
}

/** An address from its text form; undefined when it is none. */
export function parseAddress(text: string): Address | undefined {
  const v4 = parseV4(text);
  if (v4 !== undefined) return { family: 4, value: v4 };
  if (!text.includes(":")) return undefined;
  const v6 = parseV6(text);
  return v6 === undefined ? undefined : { family: 6, value: v6 };
}

/** Text form; IPv6 with the longest run of zero groups shortened (RFC 5952). */
export function formatAddress({ family, value }: Address): string {
  if (family === 4) {
    return [24n, 16n, 8n, 0n].map((shift) => String((value >> shift) & 255n)).join(".");
  }
  const groups = Array.from({ length: 8 }, (_, i) =>
    Number((value >> BigInt(16 * (7 - i))) & 0xffffn).toString(16),
  );
  let best = { start: 0, length: 0 };
  for (let start = 0; start < 8; start += 1) {
    let length = 0;
    while (start + length < 8 && groups[start + length] === "0") length += 1;
    if (length > best.length) best = { start, length };
  }
  if (best.length < 2) return groups.join(":");
  const head = groups.slice(0, best.start).join(":");
  return `${head}::${groups.slice(best.start + best.length).join(":")}`;
}

/** `ADDRESS/PREFIX`, host bits cleared; undefined when it is none. */
export function parseCidr(text: string): Cidr | undefined {
  const match = /^([^/]+)\/(0|[1-9]\d{0,2})$/.exec(text);
  const address = parseAddress(match?.[1] ?? "");
  const prefix = Number(match?.[2]);
  if (address === undefined || prefix > width(address.family)) return undefined;
  const host = BigInt(width(address.family) - prefix);
  return { family: address.family, value: (address.value >> host) << host, prefix };
}

/** Text form of a CIDR. */
export function formatCidr(cidr: Cidr): string {
  return `${formatAddress(cidr)}/${cidr.prefix}`;
}

/** Whether all of `inner` lies in `outer`. */
export function contains(outer: Cidr, inner: Address | Cidr): boolean {
  const prefix = "prefix" in inner ? inner.prefix : width(inner.family);
  if (outer.family !== inner.family || prefix < outer.prefix) return false;
  const host = BigInt(width(outer.family) - outer.prefix);
  return outer.value >> host === inner.value >> host;
}

/** A CIDR written in the source code: throws when it is misspelt. */
export function cidr(text: string): Cidr {
  const parsed = parseCidr(text);
  if (parsed === undefined) throw new TypeError(`not a CIDR: ${text}`);
  return parsed;
}

/**
 * The IPv4 address inside an IPv6 one that stands for it (mapped ::ffff:0:0/96, NAT64
 * 64:ff9b::/96, 6to4 2002::/16), or the address itself.
 */
export function embeddedV4(address: Address): Address {
  if (address.family === 4) return address;
  if (contains(cidr("::ffff:0:0/96"), address) || contains(cidr("64:ff9b::/96"), address)) {
    return { family: 4, value: address.value & 0xffffffffn };
  }
  if (contains(cidr("2002::/16"), address)) {
    return { family: 4, value: (address.value >> 80n) & 0xffffffffn };
  }
  return address;
}
