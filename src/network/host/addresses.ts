/** The host's own addresses, which guests must not reach. */
import { readFileSync } from "node:fs";
import { networkInterfaces } from "node:os";
import { errnoOf } from "../../model/errors.ts";

/** Addresses of IPv4 that are this host's, in the kernel's table of routes. */
const LOCAL = /\|-- (\d+\.\d+\.\d+\.\d+)\n(?:\s+\/(?!32 )\d+ .*\n)*\s+\/32 host LOCAL$/gm;
/** Addresses of IPv6, one a line. */
const INET6 = /^([0-9a-f]{32}) /gm;

/** A list of the kernel's; empty where it has none. */
function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    // A kernel without IPv6.
    if (errnoOf(error) === "ENOENT") return "";
    throw error;
  }
}

/** An address of IPv6 as it is written, of its 32 digits. */
function written(digits: string): string {
  const { hostname } = new URL(`http://[${digits.replaceAll(/.{4}(?=.)/g, "$&:")}]`);
  return hostname.slice(1, -1);
}

/**
 * As /32 and /128, as they are now. From the kernel's lists of addresses: to ask for the interfaces takes a host with a thousand
 * VMs, whose links have none, twenty times as long, in which the daemon does nothing else.
 */
export function hostAddresses(): string[] {
  const four = [...read("/proc/net/fib_trie").matchAll(LOCAL)].map(([, text = ""]) => text);
  // Every host has 127.0.0.1: else this is a kernel of another kind.
  if (!four.includes("127.0.0.1")) return addressesOfInterfaces();
  const six = [...read("/proc/net/if_inet6").matchAll(INET6)].map(([, text = ""]) => text);
  const all = [...four.map((text) => `${text}/32`), ...six.map((text) => `${written(text)}/128`)];
  return [...new Set(all)].toSorted();
}

/** The same, as the interfaces tell it. */
export function addressesOfInterfaces(): string[] {
  const list = Object.values(networkInterfaces()).flatMap((entries) => entries ?? []);
  const plain = list.map((entry) => `${entry.address}/${entry.family === "IPv4" ? 32 : 128}`);
  return [...new Set(plain)].toSorted();
}
