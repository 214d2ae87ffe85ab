/**
 * Heads of requests and answers between a guest and a server that secrets are for: what passes, in
 * which form. Pure.
 */
import type { SecretDomain } from "../../model/secret.ts";
import { HOP_BY_HOP } from "../../util/hop-by-hop.ts";
import { normalName } from "../policy/judge.ts";
import type { Held } from "./forms.ts";
import { puttingIn } from "./forms.ts";
import { replaceText, type Replacement } from "./replace.ts";

/** Names and values, alternating, as Node's `rawHeaders`. */
export type RawHeaders = string[];

/** A request that is not passed on, and what the guest is told. */
export interface Refusal {
  status: number;
  rule: string;
  text: string;
}

/** Fields that are between two neighbours, with that of a switch to HTTP/2 (RFC 7540, section 3.2.1). */
const hopByHop: ReadonlySet<string> = new Set([...HOP_BY_HOP, "http2-settings"]);

/**
 * Fields of requests that are not passed on: ours to say, or a way to get an answer in pieces or
 * encodings in which a value could not be found.
 */
const ours = new Set(["accept-encoding", "range", "if-range", "expect", "content-length", "host"]);

/** Fields of answers that would lead the guest around the proxy. */
const aside = new Set(["alt-svc", "alt-used"]);

/** The pairs of raw headers. */
export function pairsOf(raw: readonly string[]): [name: string, value: string][] {
  const pairs: [string, string][] = [];
  for (let at = 0; at + 1 < raw.length; at += 2) pairs.push([raw[at] ?? "", raw[at + 1] ?? ""]);
  return pairs;
}

/** All values of a field, in order. */
export function valuesOf(raw: readonly string[], name: string): string[] {
  return pairsOf(raw)
    .filter(([key]) => key.toLowerCase() === name)
    .map(([, value]) => value);
}

/** Without fields that are between neighbours, those that Connection names included. */
function endToEnd(raw: readonly string[]): [string, string][] {
  const named = valuesOf(raw, "connection")
    .join(",")
    .toLowerCase()
    .split(",")
    .map((word) => word.trim());
  return pairsOf(raw).filter(([name]) => {
    const key = name.toLowerCase();
    return !hopByHop.has(key) && !named.includes(key);
  });
}

/** A request as Node has read it. */
export interface Asked {
  method: string;
  target: string;
  rawHeaders: readonly string[];
}

/** A target's path and query; undefined when it names another server or is none. */
function originForm(target: string, authority: string): string | undefined {
  if (target.startsWith("/") || target === "*") return target;
  const match = /^https?:\/\/([^/?#]*)([/?].*)?$/i.exec(target);
  if (match === null || match[1]?.toLowerCase() !== authority.toLowerCase()) return undefined;
  const rest = match[2] ?? "/";
  return rest.startsWith("/") ? rest : `/${rest}`;
}

/** Why a request must not be passed on; else its path and query. */
export function judge(asked: Asked, to: SecretDomain): Refusal | { path: string; host: string } {
  const refuse = (status: number, rule: string, text: string): Refusal => ({ status, rule, text });
  const method = asked.method.toUpperCase();
  // It asks for the request to be sent back.
  if (method === "TRACE" || method === "TRACK") {
    return refuse(405, "secret-method", `${method} is not passed on to a server with secrets`);
  }
  const hosts = valuesOf(asked.rawHeaders, "host");
  const [host = ""] = hosts;
  const named = /^([^:]*?)(?::(\d{1,5}))?$/.exec(host);
  const standard = to.scheme === "https" ? 443 : 80;
  const right =
    hosts.length === 1 &&
    named !== null &&
    normalName(named[1] ?? "") === to.host &&
    Number(named[2] ?? standard) === to.port;
  const path = right ? originForm(asked.target, host) : undefined;
  if (path === undefined) {
    return refuse(421, "secret-host", `this connection is for ${to.host} alone`);
  }
  return { path, host };
}

/** Placeholders in credentials of the Basic scheme (RFC 7617), which are behind base64. */
function inBasic(value: string, replacements: readonly Replacement[]): string {
  const match = /^(basic[ \t]+)([A-Za-z0-9+/_-]+={0,2})[ \t]*$/i.exec(value);
  if (match === null) return value;
  const plain = Buffer.from(match[2] ?? "", "base64").toString("latin1");
  const replaced = replaceText(plain, replacements);
  if (replaced === plain) return value;
  return `${match[1]}${Buffer.from(replaced, "latin1").toString("base64")}`;
}

/** The path and query with values in place of placeholders. */
export function outgoingPath(path: string, secrets: readonly Held[]): string {
  return replaceText(path, puttingIn(secrets, "query"));
}

/** The fields of a request with values in place of placeholders, and only such that may pass. */
export function outgoing(
  raw: readonly string[],
  host: string,
  secrets: readonly Held[],
): RawHeaders {
  const replacements = puttingIn(secrets, "header");
  const kept = endToEnd(raw).filter(([name]) => !ours.has(name.toLowerCase()));
  return [
    "Host",
    host,
    ...kept.flatMap(([name, value]) => {
      const plain = replaceText(value, replacements);
      return [name, name.toLowerCase() === "authorization" ? inBasic(plain, replacements) : plain];
    }),
    "Accept-Encoding",
    "identity",
  ];
}

/** The fields of an answer as the guest gets to see them; those about its length are the caller's. */
export function incoming(raw: readonly string[], replacements: readonly Replacement[]): RawHeaders {
  return endToEnd(raw)
    .filter(([name]) => {
      const key = name.toLowerCase();
      return !aside.has(key) && key !== "content-length" && key !== "content-encoding";
    })
    .flatMap(([name, value]) => [
      replaceText(name, replacements),
      replaceText(value, replacements),
    ]);
}
