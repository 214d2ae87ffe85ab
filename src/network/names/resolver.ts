/**
 * What becomes of a DNS query of a guest: pure decisions around one question to the outside.
 * Messages are read and written by dns-packet; nothing of a guest's packet is passed on but the
 * name and the type.
 */
import dns from "dns-packet";
import { messageOf } from "../../model/errors.ts";
import type { NetworkPolicy } from "../../model/policy.ts";
import { addressRefused, nameAllowed, normalName } from "../policy/judge.ts";
import type { Decision } from "../log.ts";
import { pointedAt, type PeerNames } from "../private/names.ts";
import type { Question } from "./upstream.ts";

/** Name by which a guest finds the host's opened ports. */
const hostName = "host.vmsan.internal";

/** What the resolver works with; one for each VM. */
export interface ResolverContext {
  policy: () => NetworkPolicy;
  hostAddresses: () => readonly string[];
  gateway4: string;
  gateway6: string | undefined;
  ask: (question: Question) => Promise<dns.DecodedPacket>;
  /** Make addresses reachable before they are given out; false: they may not be given out. */
  admit: (name: string, addresses: readonly string[], ttl: number) => Promise<boolean>;
  log: (decision: Decision) => void;
  peers: PeerNames;
  /** Whether the VM's secrets are for a name: its answers say nothing of ways around the proxy. */
  isSecret: (name: string) => boolean;
}

/**
 * Types that describe services with their keys: left out where names are looked at, so that no client
 * learns of ECH or HTTP/3.
 */
const serviceTypes = new Set(["UNKNOWN_64", "UNKNOWN_65", "SVCB", "HTTPS"]);

/** Types never answered: whole zones and everything-at-once. */
const refusedTypes = new Set(["AXFR", "IXFR", "ANY", "UNKNOWN_255", "UNKNOWN_251"]);

const rcode = { ok: 0, formatError: 1, serverFailure: 2, noName: 3, notImplemented: 4, refused: 5 };

/** Largest response over UDP that any path carries (RFC 9715). */
const maxUdp = 1232;

/** A response's bytes. */
function respond(
  query: dns.DecodedPacket,
  code: number,
  answers: dns.Answer[] = [],
  truncated = false,
): Buffer {
  return dns.encode({
    type: "response",
    id: query.id ?? 0,
    flags:
      code |
      (query.flag_rd ? dns.RECURSION_DESIRED : 0) |
      dns.RECURSION_AVAILABLE |
      (truncated ? dns.TRUNCATED_RESPONSE : 0),
    questions: query.questions ?? [],
    answers,
  });
}

/** The records that answer the question: its alias chain and what the chain ends in. */
function chain(question: Question, records: readonly dns.Answer[]): dns.Answer[] {
  const kept: dns.Answer[] = [];
  let name = normalName(question.name);
  for (let hops = 0; hops < 12; hops += 1) {
    const here = records.filter((record) => normalName(record.name) === name);
    const wanted = here.filter((record) => record.type === question.type);
    kept.push(...wanted);
    const alias = here.find((record) => record.type === "CNAME");
    if (wanted.length > 0 || alias?.type !== "CNAME") break;
    kept.push(alias);
    name = normalName(alias.data);
  }
  return kept;
}

/** Seconds a record may be kept. */
const ttlOf = (record: dns.Answer): number => ("ttl" in record ? (record.ttl ?? 0) : 0);

/** Answers for the one name that is ours. */
function ownName(context: ResolverContext, question: Question): dns.Answer[] {
  const record = (type: "A" | "AAAA", data: string): dns.Answer => ({
    type,
    name: question.name,
    ttl: 60,
    data,
  });
  if (question.type === "A") return [record("A", context.gateway4)];
  if (question.type === "AAAA" && context.gateway6 !== undefined) {
    return [record("AAAA", context.gateway6)];
  }
  return [];
}

/**
 * Answers about the VM's private networks; undefined when the question is about something else.
 * They count before the world's, whatever the policy, and nothing of them leaves the host.
 */
function peerAnswers(
  context: ResolverContext,
  question: Question,
): { code: number; answers: dns.Answer[] } | undefined {
  const name = normalName(question.name);
  const address = question.type === "PTR" ? pointedAt(name) : undefined;
  const names = address === undefined ? undefined : context.peers.namesOf(address);
  const addresses = context.peers.addressesOf(name);
  if (names === undefined && addresses === undefined) return undefined;
  // Members come and go: nothing is to be kept.
  const common = { name: question.name, ttl: 0 };
  const answers: dns.Answer[] =
    names === undefined
      ? question.type === "A"
        ? (addresses ?? []).map((data) => ({ type: "A", ...common, data }))
        : []
      : names.map((data) => ({ type: "PTR", ...common, data }));
  const code = names?.length === 0 ? rcode.noName : rcode.ok;
  const verdict = code === rcode.ok ? "allowed" : "denied";
  context.log({ verdict, protocol: "dns", name, rule: "private-network" });
  return { code, answers };
}

/** Look the question up and keep of the answer what the policy lets through. */
async function lookUp(
  context: ResolverContext,
  question: Question,
): Promise<{ code: number; answers: dns.Answer[] }> {
  const policy = context.policy();
  const name = normalName(question.name);
  const note = (verdict: Decision["verdict"], rule: string, address?: string): void => {
    context.log({
      verdict,
      protocol: "dns",
      name,
      rule,
      ...(address === undefined ? {} : { address }),
    });
  };
  if (!nameAllowed(policy, name)) {
    note("denied", "name");
    return { code: rcode.noName, answers: [] };
  }
  const closed = policy.mode === "custom" || context.isSecret(name);
  if (closed && serviceTypes.has(question.type)) {
    note("denied", "service-record");
    return { code: rcode.ok, answers: [] };
  }
  let packet: dns.DecodedPacket;
  try {
    packet = await context.ask(question);
  } catch (error) {
    note("denied", `no answer: ${messageOf(error)}`);
    return { code: rcode.serverFailure, answers: [] };
  }
  // The policy may have changed while the question was out: judge by the one in force now.
  const now = context.policy();
  if (!nameAllowed(now, name)) {
    note("denied", "name");
    return { code: rcode.noName, answers: [] };
  }
  const addresses: string[] = [];
  let ttl = Number.POSITIVE_INFINITY;
  const answers = chain(question, packet.answers ?? []).filter((record) => {
    if (record.type !== "A" && record.type !== "AAAA") return true;
    const refused = addressRefused(now, context.hostAddresses(), record.data);
    if (refused !== undefined) {
      note("denied", `rebinding (${refused})`, record.data);
      return false;
    }
    addresses.push(record.data);
    ttl = Math.min(ttl, ttlOf(record));
    return true;
  });
  if (addresses.length > 0 && !(await context.admit(name, addresses, ttl))) {
    note("denied", "not admitted", addresses[0]);
    return { code: rcode.serverFailure, answers: [] };
  }
  note("allowed", now.mode === "custom" ? "allowed-domain" : "allow-all", addresses[0]);
  const upstreamCode = (packet.flags ?? 0) & 15;
  const known = upstreamCode === rcode.noName || upstreamCode === rcode.ok;
  const code = known ? upstreamCode : rcode.serverFailure;
  return { code, answers };
}

/**
 * The response to a guest's message; undefined: no response (it is not a query).
 * @param transport limits the response's size
 */
export async function resolveQuery(
  context: ResolverContext,
  message: Buffer,
  transport: "udp" | "tcp",
): Promise<Buffer | undefined> {
  let query: dns.DecodedPacket;
  try {
    query = dns.decode(message);
  } catch {
    // Not a DNS message. An answer would have to guess an id; silence is what servers do.
    return undefined;
  }
  if (query.type !== "query") return undefined;
  const [first] = query.questions ?? [];
  if (query.questions?.length !== 1 || first === undefined)
    return respond(query, rcode.formatError);
  if ((query.flags ?? 0) >> 11 !== 0) return respond(query, rcode.notImplemented);
  if (first.class !== "IN" || refusedTypes.has(first.type)) return respond(query, rcode.refused);
  const question: Question = { name: first.name, type: first.type };
  // Under deny-all the server is there for private networks alone.
  const own = context.policy().mode !== "deny-all" && normalName(question.name) === hostName;
  const result = own
    ? { code: 0, answers: ownName(context, question) }
    : (peerAnswers(context, question) ?? (await lookUp(context, question)));
  const bytes = respond(query, result.code, result.answers);
  if (transport === "tcp") return bytes;
  const edns = query.additionals?.find((record) => record.type === "OPT");
  const room = Math.min(Math.max(edns?.type === "OPT" ? edns.udpPayloadSize : 512, 512), maxUdp);
  return bytes.length <= room ? bytes : respond(query, result.code, [], true);
}
