/** Addresses that lead to this machine itself. */
import { BlockList, isIP } from "node:net";

const LOOPBACK = new BlockList();
LOOPBACK.addSubnet("127.0.0.0", 8, "ipv4");
LOOPBACK.addAddress("::1", "ipv6");

/**
 * Whether a host name or an address is this machine itself, whoever has it.
 * @param host as URLs have it: an IPv6 address may be in brackets
 */
export function isLoopback(host: string): boolean {
  const name = host.replace(/^\[|\]$/g, "").toLowerCase();
  const family = isIP(name);
  if (family === 0) return name === "localhost" || name.endsWith(".localhost");
  // Addresses of version 4 written as such of version 6 are found, too.
  return LOOPBACK.check(name, family === 6 ? "ipv6" : "ipv4");
}
