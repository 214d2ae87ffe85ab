/** From a slot number to everything a VM's network is named and addressed by. Pure. */
import { createHash } from "node:crypto";
import { formatAddress, parseAddress } from "../policy/cidr.ts";

/** Range of guest addresses, one /30 a slot. 198.18.0.0/16 is that of private networks. */
const range = { base: "198.19.0.0", slots: 16_384 };

/** How many VMs can have a network at the same time. */
export const slotCount = range.slots;

/** Names inside every VM's namespace. */
export const tapName = "tap0";
export const uplinkName = "up0";
export const shaperName = "ifb0";

/** MTU of the guest's card and of its way out, in bytes. */
export const mtu = 1500;

/** Addresses that a namespace and the host know each other by; link-local, never on a wire. */
export const nextHop4 = "169.254.0.1";
export const nextHop6 = "fe80::1";

/** Everything that follows from a VM's id and slot. */
export interface Plan {
  slot: number;
  /** Name of the network namespace. */
  netns: string;
  /** Host end of the veth pair. */
  hostLink: string;
  hostMac: string;
  uplinkMac: string;
  /** Gateway's end of the tap, as seen by the guest. */
  gatewayMac: string;
  guestMac: string;
  gateway4: string;
  guest4: string;
  gateway6: string;
  guest6: string;
  prefix4: number;
  prefix6: number;
}

/** The /48 of this machine's guests: a unique local prefix (RFC 4193) from the machine's id. */
export function machinePrefix6(machineId: string): string {
  const hex = createHash("sha256").update(`vmsan-ula:${machineId.trim()}`).digest("hex");
  return `fd${hex.slice(0, 2)}:${hex.slice(2, 6)}:${hex.slice(6, 10)}`;
}

/** A locally administered unicast MAC address. */
function mac(...parts: (string | number)[]): string {
  const hex = createHash("sha256").update(parts.join(":")).digest("hex");
  return ["02", ...(hex.slice(0, 10).match(/../g) ?? [])].join(":");
}

/** The link-local IPv6 address that Linux gives a card with this MAC (RFC 4291, modified EUI-64). */
export function linkLocalOf(macAddress: string): string {
  const bytes = macAddress.split(":").map((part) => Number.parseInt(part, 16));
  const [first = 0, second = 0, third = 0, ...rest] = bytes;
  const id = [first ^ 2, second, third, 0xff, 0xfe, ...rest];
  const value = id.reduce((sum, byte) => sum * 256n + BigInt(byte), 0n);
  return formatAddress({ family: 6, value: (0xfe80n << 112n) + value });
}

/** The plan for a slot. @param prefix6 first 48 bits, as from {@link machinePrefix6} */
export function planFor(vmId: string, slot: number, prefix6: string): Plan {
  const base = parseAddress(range.base);
  if (base === undefined || slot < 0 || slot >= slotCount) throw new RangeError(`no slot ${slot}`);
  const at = (offset: number): string =>
    formatAddress({ family: 4, value: base.value + BigInt(4 * slot + offset) });
  const base6 = parseAddress(`${prefix6}:${slot.toString(16)}::`);
  if (base6 === undefined) throw new RangeError(`no prefix ${prefix6}`);
  const at6 = (offset: bigint): string => formatAddress({ family: 6, value: base6.value + offset });
  return {
    slot,
    netns: `vmsan-${vmId}`,
    hostLink: `vmsan${slot}`,
    hostMac: mac("host", vmId, slot),
    uplinkMac: mac("uplink", vmId, slot),
    gatewayMac: mac("gateway", vmId, slot),
    guestMac: mac("guest", vmId, slot),
    gateway4: at(1),
    guest4: at(2),
    gateway6: at6(1n),
    guest6: at6(2n),
    prefix4: 30,
    prefix6: 64,
  };
}
