/** Hosts before a port. */

/** A host name or address as it is written before a colon and a port: an IPv6 address in brackets. */
export function bracketed(host: string): string {
  return host.includes(":") ? `[${host}]` : host;
}
