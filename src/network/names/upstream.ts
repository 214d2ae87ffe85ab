/** Asks the host's (or configured) name servers, over UDP and, when cut off, TCP (RFC 1035). */
import { randomInt } from "node:crypto";
import { createSocket } from "node:dgram";
import { readFileSync, statSync } from "node:fs";
import { connect, isIPv6 } from "node:net";
import { VmsanError, errnoOf, messageOf } from "../../model/errors.ts";
import dns from "dns-packet";

/** A name server. */
export interface NameServer {
  address: string;
  port: number;
}

/** Milliseconds to wait for one server's answer. */
const patience = 2500;

/** A server written as `address` or `address#port`; undefined when it is neither. */
export function parseServer(text: string): NameServer | undefined {
  const match = /^([0-9A-Fa-f.:]+)(?:%\w+)?(?:#(\d{1,5}))?$/.exec(text);
  if (match?.[1] === undefined) return undefined;
  return { address: match[1], port: Number(match[2] ?? 53) };
}

/**
 * The `nameserver` lines of a resolv.conf. A local stub (systemd-resolved's 127.0.0.53) is fine:
 * the daemon asks it from the host, where it is reachable, and gets its split views.
 */
export function parseResolvConf(text: string): NameServer[] {
  return text
    .split("\n")
    .map((line) => /^\s*nameserver\s+(\S+)/.exec(line)?.[1])
    .map((address) => (address === undefined ? undefined : parseServer(address)))
    .filter((server) => server !== undefined)
    .slice(0, 3);
}

let cached: { stamp: number; servers: NameServer[] } | undefined;

/** The host's servers, read again when the file changed. */
function hostServers(): NameServer[] {
  const path = "/etc/resolv.conf";
  try {
    const stamp = statSync(path).mtimeMs;
    if (cached?.stamp !== stamp) {
      cached = { stamp, servers: parseResolvConf(readFileSync(path, "utf8")) };
    }
    return cached.servers;
  } catch (error) {
    // ENOENT: a host without name servers; queries fail with that reason.
    if (errnoOf(error) === "ENOENT") return [];
    throw error;
  }
}

/** A question in the library's terms. */
export interface Question {
  name: string;
  type: string;
}

/** Whether an answer is for this question. */
function belongs(packet: dns.DecodedPacket, id: number, question: Question): boolean {
  const asked = packet.questions?.[0];
  return (
    packet.id === id &&
    packet.type === "response" &&
    packet.questions?.length === 1 &&
    asked?.name.toLowerCase() === question.name.toLowerCase() &&
    asked.type === question.type
  );
}

/** A fresh query: nothing of the guest's own packet but name and type goes out. */
function query(question: Question): { id: number; bytes: Buffer } {
  const id = randomInt(65_536);
  const bytes = dns.encode({
    type: "query",
    id,
    flags: dns.RECURSION_DESIRED,
    questions: [{ name: question.name, type: question.type as dns.RecordType, class: "IN" }],
    additionals: [
      {
        type: "OPT",
        name: ".",
        udpPayloadSize: 1232,
        extendedRcode: 0,
        ednsVersion: 0,
        flags: 0,
        flag_do: false,
        options: [],
      },
    ],
  });
  return { id, bytes };
}

/** One question over UDP; a random port and id and a connected socket keep strangers out. */
async function askUdp(server: NameServer, question: Question): Promise<dns.DecodedPacket> {
  const { id, bytes } = query(question);
  const socket = createSocket(isIPv6(server.address) ? "udp6" : "udp4");
  try {
    return await new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error("no answer in time")), patience);
      socket.on("close", () => clearTimeout(timer));
      socket.on("error", reject);
      socket.on("message", (message) => {
        try {
          const packet = dns.decode(message);
          if (belongs(packet, id, question)) resolve(packet);
        } catch {
          // Not a DNS message, or a damaged one: wait for a better one until the time is up.
        }
      });
      socket.connect(server.port, server.address, () => socket.send(bytes));
    });
  } finally {
    socket.close();
  }
}

/** One question over TCP. */
async function askTcp(server: NameServer, question: Question): Promise<dns.DecodedPacket> {
  const { id, bytes } = query(question);
  const socket = connect(server.port, server.address);
  socket.setTimeout(patience, () => socket.destroy(new Error("no answer in time")));
  socket.write(Buffer.concat([Buffer.from([bytes.length >> 8, bytes.length & 255]), bytes]));
  let data = Buffer.alloc(0);
  try {
    for await (const chunk of socket) {
      data = Buffer.concat([data, chunk as Buffer]);
      if (data.length < 2 || data.length < 2 + data.readUInt16BE(0)) continue;
      const packet = dns.decode(data.subarray(2, 2 + data.readUInt16BE(0)));
      if (belongs(packet, id, question)) return packet;
      break;
    }
    throw new Error("no proper answer over TCP");
  } finally {
    socket.destroy();
  }
}

/**
 * Ask the servers in turn. Throws ERR_NETWORK_RESOLVER when none answers.
 * @param configured servers to use in place of the host's
 */
export async function ask(
  question: Question,
  configured: readonly NameServer[] | undefined,
): Promise<dns.DecodedPacket> {
  const servers = configured ?? hostServers();
  let last: unknown = new Error("the host has no name servers (/etc/resolv.conf)");
  for (const server of servers) {
    try {
      const packet = await askUdp(server, question);
      return packet.flag_tc ? await askTcp(server, question) : packet;
    } catch (error) {
      last = error;
    }
  }
  throw new VmsanError(
    {
      code: "ERR_NETWORK_RESOLVER",
      message: `Cannot look up ${question.name}`,
      why: `No name server answered: ${messageOf(last)}`,
      fix: "Check the host's /etc/resolv.conf, or configure the name servers.",
    },
    last,
  );
}
