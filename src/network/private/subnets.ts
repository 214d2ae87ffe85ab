/**
 * private/: networks that VMs share. Takes names, ranges and memberships, gives links between VMs'
 * namespaces over one of the network's own (docs/network.md, "Private networks").
 *
 * subnets.ts: which addresses such networks have. Pure.
 */
import { VmsanError } from "../../model/errors.ts";
import { contains, formatAddress, formatCidr, parseAddress, parseCidr } from "../policy/cidr.ts";
import { cidr, type Cidr } from "../policy/cidr.ts";

/** Where networks that name no range get theirs from, a /24 each: no real network has these. */
const pool = cidr("198.18.0.0/16");
const poolPrefix = 24;

/** Ranges that a user may name: private ones, and the pool. */
const permitted: readonly Cidr[] = [
  pool,
  ...["10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16"].map(cidr),
];

/** Fewest and most bits that the network's part of an address has. */
const prefixes = { shortest: 8, longest: 29 };

/** Whether two ranges share an address. */
function overlap(one: Cidr, other: Cidr): boolean {
  return contains(one, other) || contains(other, one);
}

/** A range that cannot be a network's. */
function refused(text: string, why: string, fix: string): VmsanError {
  return new VmsanError({
    code: "ERR_PRIVATE_NETWORK_SUBNET",
    message: `Cannot make a private network of ${text}`,
    why,
    fix,
  });
}

/**
 * The range that a user names, in its shortest form.
 * @param others ranges of the networks that there are
 * @throws ERR_PRIVATE_NETWORK_SUBNET
 */
export function checkSubnet(text: string, others: readonly string[]): string {
  const subnet = parseCidr(text);
  const example = "For example: --subnet 10.20.0.0/24; without it a free one is chosen.";
  if (subnet?.family !== 4) throw refused(text, "It takes an IPv4 range.", example);
  const [address = ""] = text.split("/");
  if (formatAddress(subnet) !== address) {
    throw refused(text, "It has bits beyond its prefix.", `You may mean ${formatCidr(subnet)}.`);
  }
  if (subnet.prefix < prefixes.shortest || subnet.prefix > prefixes.longest) {
    throw refused(text, "Its prefix must be /8 to /29.", example);
  }
  if (!permitted.some((range) => contains(range, subnet))) {
    const list = permitted.map(formatCidr).join(", ");
    throw refused(text, `It is in none of ${list}: others may have these addresses.`, example);
  }
  const other = others.find((each) => overlap(cidr(each), subnet));
  if (other !== undefined) {
    throw refused(text, `Another network has ${other}.`, "Choose one beside it.");
  }
  return formatCidr(subnet);
}

/** A range of the pool that overlaps none of these. @throws ERR_PRIVATE_NETWORK_SUBNET */
export function freeSubnet(others: readonly string[]): string {
  const taken = others.map(cidr);
  const count = 2 ** (poolPrefix - pool.prefix);
  const step = 2n ** BigInt(32 - poolPrefix);
  for (let number = 0; number < count; number += 1) {
    const value = pool.value + BigInt(number) * step;
    const subnet: Cidr = { family: 4, value, prefix: poolPrefix };
    if (!taken.some((each) => overlap(each, subnet))) return formatCidr(subnet);
  }
  throw refused(
    "a free range",
    `All ${count} of ${formatCidr(pool)} are taken.`,
    "Remove networks (vmsan network prune), or name a range: --subnet 10.20.0.0/24.",
  );
}

/** No address for a VM. */
function noAddress(network: string, what: string, why: string, fix: string): VmsanError {
  return new VmsanError({
    code: "ERR_PRIVATE_NETWORK_ADDRESS",
    message: `Cannot give a VM ${what} in the network ${network}`,
    why,
    fix,
  });
}

/** First and last address that a member may have: not the range's own, the gateway's by habit, the broadcast. */
function bounds(subnet: Cidr): { first: bigint; last: bigint } {
  return {
    first: subnet.value + 2n,
    last: subnet.value + 2n ** BigInt(32 - subnet.prefix) - 2n,
  };
}

/**
 * The address that a VM shall have in a network.
 * @param wanted by the user
 * @param taken of other members
 * @param after the search for a free one begins behind it: one just freed is not given at once
 * @throws ERR_PRIVATE_NETWORK_ADDRESS
 */
export function memberAddress(
  network: string,
  range: string,
  wanted: string | undefined,
  taken: ReadonlySet<string>,
  after?: string,
): string {
  const subnet = cidr(range);
  const { first, last } = bounds(subnet);
  if (wanted !== undefined) {
    const address = parseAddress(wanted);
    if (address?.family !== 4 || address.value < first || address.value > last) {
      const ends = [first, last].map((value) => formatAddress({ family: 4, value }));
      const why = `Members' addresses are ${ends.join(" to ")}.`;
      throw noAddress(network, `the address ${wanted}`, why, "Leave the choice to vmsan.");
    }
    if (taken.has(wanted)) {
      const fix = "Choose another one, or leave the choice to vmsan.";
      throw noAddress(network, `the address ${wanted}`, "Another VM has it.", fix);
    }
    return wanted;
  }
  const count = last - first + 1n;
  const cursor = parseAddress(after ?? "");
  const start =
    cursor !== undefined && cursor.value >= first && cursor.value < last
      ? cursor.value - first + 1n
      : 0n;
  for (let step = 0n; step < count; step += 1n) {
    const address = formatAddress({ family: 4, value: first + ((start + step) % count) });
    if (!taken.has(address)) return address;
  }
  const fix = "Remove VMs from it, or make a network with more: vmsan network create --subnet.";
  throw noAddress(network, "an address", `All ${count} are taken.`, fix);
}

/** Whether an address is one that a member of a range may have. */
export function isMemberAddress(range: string, text: string): boolean {
  const address = parseAddress(text);
  const { first, last } = bounds(cidr(range));
  return address?.family === 4 && address.value >= first && address.value <= last;
}
