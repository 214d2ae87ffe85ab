/**
 * Addresses that no policy reaches by accident. Pure data.
 * Sources: IANA special-purpose address registries (RFC 6890), the cloud providers' pages on
 * instance metadata, the public resolvers' own pages.
 */
import { cidr, type Cidr } from "./cidr.ts";

/** Where guests' own addresses come from: other VMs, never reachable, whatever is allowed. */
export const guestRanges: readonly Cidr[] = [cidr("198.18.0.0/15")];

/**
 * Closed under every policy, unless an allowed CIDR lies wholly inside one of them: this
 * host's and other private networks, link-local (cloud metadata), multicast, reserved,
 * and IPv6 forms that hide an IPv4 address.
 */
export const protectedRanges: readonly Cidr[] = [
  "0.0.0.0/8",
  "10.0.0.0/8",
  "100.64.0.0/10", // carrier NAT; 100.100.100.200 is Alibaba's metadata
  "127.0.0.0/8",
  "168.63.129.16/32", // Azure's wire server
  "169.254.0.0/16", // link-local; 169.254.169.254 is nearly everyone's metadata
  "172.16.0.0/12",
  "192.0.0.0/24", // 192.0.0.192 is Oracle's metadata
  "192.168.0.0/16",
  "198.18.0.0/15",
  "224.0.0.0/4",
  "240.0.0.0/4",
  "::/96", // unspecified, loopback, IPv4-compatible
  "::ffff:0:0/96",
  "64:ff9b::/96",
  "64:ff9b:1::/48",
  "100::/64",
  "2001::/32", // Teredo
  "2002::/16",
  "fc00::/7", // unique local; fd00:ec2::254 is Amazon's metadata
  "fe80::/10",
  "fec0::/10",
  "ff00::/8",
].map(cidr);

/**
 * Public resolvers that answer over HTTPS: closed under `custom` unless an allowed CIDR names
 * them exactly, since a name looked up there escapes the domain list.
 */
export const dohResolvers: readonly Cidr[] = [
  "1.0.0.1/32",
  "1.0.0.2/32",
  "1.0.0.3/32",
  "1.1.1.1/32",
  "1.1.1.2/32",
  "1.1.1.3/32",
  "8.8.4.4/32",
  "8.8.8.8/32",
  "9.9.9.9/32",
  "9.9.9.10/32",
  "9.9.9.11/32",
  "149.112.112.0/24",
  "94.140.14.0/24",
  "94.140.15.0/24",
  "76.76.2.0/24",
  "76.76.10.0/24",
  "185.228.168.0/24",
  "185.228.169.0/24",
  "45.90.28.0/24",
  "45.90.30.0/24",
  "208.67.220.0/24",
  "208.67.222.0/24",
  "194.242.2.0/24",
  "193.110.81.0/24",
  "185.253.5.0/24",
  "2001:4860:4860::/48",
  "2606:4700:4700::/48",
  "2620:fe::/48",
  "2620:119:35::/48",
  "2620:119:53::/48",
  "2a10:50c0::/32",
  "2a07:a8c0::/32",
  "2a07:a8c1::/32",
].map(cidr);
