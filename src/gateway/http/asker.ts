/** Where a request comes from, for what is shared fairly among strangers. */
import type { IncomingMessage } from "node:http";
import { isIPv6 } from "node:net";

/** The network of an address: of IPv6 its first 64 bits, all of which are one customer's. */
function networkOf(address: string): string {
  const mapped = /^::ffff:([\d.]+)$/i.exec(address)?.[1];
  if (mapped !== undefined || !isIPv6(address)) return mapped ?? address;
  const [head = "", tail] = address.split("::", 2);
  const groups = head === "" ? [] : head.split(":");
  const behind = tail === undefined || tail === "" ? [] : tail.split(":");
  // A dotted end would stand for two.
  const missing = 8 - groups.length - behind.length - (address.includes(".") ? 1 : 0);
  if (tail !== undefined) groups.push(...Array<string>(missing).fill("0"), ...behind);
  return groups
    .slice(0, 4)
    .map((group) => Number.parseInt(group, 16).toString(16))
    .join(":");
}

/**
 * Who asks, as far as that can be told of somebody without a key.
 * @param behindProxy what is in front adds the address that it has seen to `X-Forwarded-For`; what stands before it is the client's word
 */
export function askerOf(
  { headers, socket }: Pick<IncomingMessage, "headers" | "socket">,
  behindProxy: boolean,
): string {
  const { "x-forwarded-for": forwarded } = headers;
  const said = behindProxy ? [forwarded ?? ""].flat().join(",").split(",").at(-1)?.trim() : "";
  return networkOf(said || (socket.remoteAddress ?? ""));
}
