/** Raw frames for probes: just enough of Ethernet, ARP, IP and UDP to send what no stack would. */

/** Bytes of a MAC address. */
const mac = (text: string): Buffer => Buffer.from(text.replaceAll(":", ""), "hex");

/** Bytes of an IPv4 address. */
const v4 = (text: string): Buffer => Buffer.from(text.split(".").map(Number));

/** Bytes of an IPv6 address in full or with one `::`. */
function v6(text: string): Buffer {
  const [head = "", tail] = text.split("::");
  const groups = (part: string | undefined): number[] =>
    part === undefined || part === ""
      ? []
      : part.split(":").map((group) => Number.parseInt(group, 16));
  const before = groups(head);
  const after = groups(tail);
  const all = [
    ...before,
    ...Array.from({ length: 8 - before.length - after.length }, () => 0),
    ...after,
  ];
  return Buffer.from(all.flatMap((group) => [group >> 8, group & 255]));
}

/** Internet checksum (RFC 1071). */
export function checksum(data: Buffer): number {
  let sum = 0;
  for (let at = 0; at < data.length; at += 2) sum += (data[at] ?? 0) * 256 + (data[at + 1] ?? 0);
  while (sum > 65_535) sum = (sum & 65_535) + Math.floor(sum / 65_536);
  return ~sum & 65_535;
}

const u16 = (value: number): Buffer => Buffer.from([value >> 8, value & 255]);

/** An Ethernet frame in hexadecimal. */
export function ethernet(from: string, to: string, type: number, payload: Buffer): string {
  return Buffer.concat([mac(to), mac(from), u16(type), payload]).toString("hex");
}

/** An IPv4 packet. @param fragment the flags-and-offset field */
export function ipv4(
  source: string,
  target: string,
  protocol: number,
  payload: Buffer,
  fragment = 0,
  id = 1,
): Buffer {
  const header = Buffer.concat([
    Buffer.from([0x45, 0]),
    u16(20 + payload.length),
    u16(id),
    u16(fragment),
    Buffer.from([64, protocol, 0, 0]),
    v4(source),
    v4(target),
  ]);
  header.writeUInt16BE(checksum(header), 10);
  return Buffer.concat([header, payload]);
}

/** An IPv6 packet. */
export function ipv6(
  source: string,
  target: string,
  next: number,
  payload: Buffer,
  hops = 64,
): Buffer {
  return Buffer.concat([
    Buffer.from([0x60, 0, 0, 0]),
    u16(payload.length),
    Buffer.from([next, hops]),
    v6(source),
    v6(target),
    payload,
  ]);
}

/** A UDP datagram without checksum (IPv4 permits that). */
export function udp(sourcePort: number, targetPort: number, payload: Buffer): Buffer {
  return Buffer.concat([
    u16(sourcePort),
    u16(targetPort),
    u16(8 + payload.length),
    u16(0),
    payload,
  ]);
}

/** A UDP datagram with the checksum that IPv6 demands. */
export function udp6(source: string, target: string, targetPort: number, payload: Buffer): Buffer {
  const datagram = udp(4000, targetPort, payload);
  const pseudo = Buffer.concat([
    v6(source),
    v6(target),
    Buffer.from([0, 0, 0, datagram.length, 0, 0, 0, 17]),
  ]);
  datagram.writeUInt16BE(checksum(Buffer.concat([pseudo, datagram])), 6);
  return datagram;
}

/** A TCP segment with the SYN flag and data. */
export function tcpSyn(
  source: string,
  target: string,
  ports: [number, number],
  payload: Buffer,
): Buffer {
  const segment = Buffer.concat([
    u16(ports[0]),
    u16(ports[1]),
    Buffer.alloc(8),
    Buffer.from([0x50, 2, 255, 255, 0, 0, 0, 0]),
    payload,
  ]);
  const pseudo = Buffer.concat([v4(source), v4(target), Buffer.from([0, 6]), u16(segment.length)]);
  segment.writeUInt16BE(checksum(Buffer.concat([pseudo, segment])), 16);
  return segment;
}

/** An ARP packet (RFC 826), padded with a mark. */
export function arp(
  operation: 1 | 2,
  sender: [string, string],
  target: [string, string],
  mark: string,
): Buffer {
  return Buffer.concat([
    Buffer.from([0, 1, 8, 0, 6, 4]),
    u16(operation),
    mac(sender[0]),
    v4(sender[1]),
    mac(target[0]),
    v4(target[1]),
    Buffer.from(mark),
  ]);
}

/** An ICMPv6 message with its checksum. */
export function icmpv6(source: string, target: string, type: number, body: Buffer): Buffer {
  const message = Buffer.concat([Buffer.from([type, 0, 0, 0]), body]);
  const pseudo = Buffer.concat([
    v6(source),
    v6(target),
    Buffer.from([0, 0, 0, message.length, 0, 0, 0, 58]),
  ]);
  message.writeUInt16BE(checksum(Buffer.concat([pseudo, message])), 2);
  return message;
}
