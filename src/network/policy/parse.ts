/** Policies and published ports from what users type. Pure; loaded by the CLI's start-up. */
import { domainToASCII } from "node:url";
import { VmsanError } from "../../model/errors.ts";
import type { NetworkPolicy, PolicyMode, PublishedPort } from "../../model/policy.ts";
import { formatAddress, formatCidr, parseAddress, parseCidr } from "./cidr.ts";

/** A comma list as typed, or the pieces of a repeated option. */
export type ListInput = string | readonly string[] | undefined;

/** A policy as users write it; everything optional. */
export interface PolicyInput {
  /** `allow-all`, `deny-all`, `custom`, `none`; default `allow-all`. */
  mode?: string | undefined;
  allowedDomains?: ListInput;
  allowedCidrs?: ListInput;
  deniedCidrs?: ListInput;
  allowedPorts?: string | readonly (string | number)[] | undefined;
  allowHostPorts?: string | readonly (string | number)[] | undefined;
  allowIcmp?: boolean | undefined;
  allowUdp?: boolean | undefined;
  /** `50mbit`, `50m`. */
  bandwidth?: string | undefined;
}

const modes: readonly PolicyMode[] = ["allow-all", "deny-all", "custom", "none"];

/** Most entries of one list: keeps rulesets and messages small. */
const maxEntries = 1000;

/** An ERR_VALIDATION_* error. */
function invalid(what: string, message: string, why: string, fix: string): VmsanError {
  return new VmsanError({ code: `ERR_VALIDATION_${what}`, message, why, fix });
}

/** The entries of a list, trimmed; an empty entry is an error, an empty list is not. */
function entries(input: ListInput, code: string, name: string): string[] {
  if (input === undefined) return [];
  const pieces = (typeof input === "string" ? [input] : input).flatMap((piece) => piece.split(","));
  const list = pieces.map((piece) => piece.trim());
  if (list.length > maxEntries) {
    throw invalid(
      code,
      `Cannot use ${list.length} ${name}s`,
      `At most ${maxEntries} are supported.`,
      "Use wider CIDRs or wildcard domains.",
    );
  }
  if (list.includes("")) {
    throw invalid(
      code,
      `Cannot read the list of ${name}s`,
      "It has an empty entry.",
      "Separate the entries by single commas, without one at the end.",
    );
  }
  return [...new Set(list)];
}

/** A domain in the form rules use: lower case, ASCII (IDNA), no final dot. Throws ERR_VALIDATION_DOMAIN. */
export function parseDomain(text: string): string {
  const bad = (why: string): VmsanError =>
    invalid(
      "DOMAIN",
      `Cannot use ${JSON.stringify(text)} as a domain`,
      why,
      "Write a name such as example.com, or *.example.com for every name below it.",
    );
  const wildcard = text.startsWith("*.");
  const bare = (wildcard ? text.slice(2) : text).replace(/\.$/, "");
  if (bare.includes("*")) throw bad("A star may only be the whole first label.");
  if (/[\s/:@#?%\\[\]]/.test(bare))
    throw bad("It is not a plain host name (no scheme, port, path).");
  const ascii = domainToASCII(bare);
  if (ascii === "") throw bad("It is not a valid host name.");
  if (parseAddress(ascii) !== undefined) {
    throw bad("It is an address; addresses are allowed by CIDR.");
  }
  if (ascii.length > 253) throw bad("It is longer than 253 characters.");
  for (const label of ascii.split(".")) {
    if (!/^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$/.test(label)) {
      throw bad(`The part ${JSON.stringify(label)} is not a valid label.`);
    }
  }
  return (wildcard ? "*." : "") + ascii;
}

/** A CIDR in canonical form (host bits cleared). Throws ERR_VALIDATION_CIDR. */
function parseCidrText(text: string): string {
  const parsed = parseCidr(text);
  if (parsed !== undefined) return formatCidr(parsed);
  const address = parseAddress(text);
  throw invalid(
    "CIDR",
    `Cannot use ${JSON.stringify(text)} as a CIDR`,
    address === undefined
      ? "It is not an IPv4 or IPv6 network such as 10.0.0.0/8 or 2001:db8::/32."
      : "The prefix length is missing.",
    address === undefined
      ? "Write ADDRESS/PREFIX."
      : `Write ${text}/${address.family === 4 ? 32 : 128} for that single address.`,
  );
}

/** A port number, decimal digits only. Throws ERR_VALIDATION_PORT. */
export function parsePort(text: string): number {
  const port = /^[1-9]\d{0,4}$/.test(text) ? Number(text) : 0;
  if (port >= 1 && port <= 65_535) return port;
  throw invalid(
    "PORT",
    `Cannot use ${JSON.stringify(text)} as a port`,
    "A port is an integer from 1 to 65535.",
    "Write for example 8080, or 8080:80 for port 8080 of the host and 80 of the guest.",
  );
}

/** `50mbit` or `50m` as megabits a second. Throws ERR_VALIDATION_BANDWIDTH. */
function parseBandwidth(text: string): number {
  const match = /^([1-9]\d{0,3})(m|mbit)$/i.exec(text);
  const mbit = Number(match?.[1]);
  if (match !== null && mbit <= 1000) return mbit;
  throw invalid(
    "BANDWIDTH",
    `Cannot use ${JSON.stringify(text)} as a bandwidth`,
    "It must be 1 to 1000 megabits a second.",
    "Write for example 50mbit.",
  );
}

/**
 * A policy from user input. Lists turn `allow-all` into `custom`; lists or openings with
 * `deny-all` or `none` are a conflict; `custom` without lists denies everything.
 * Throws ERR_VALIDATION_NETWORK_POLICY, _DOMAIN, _CIDR, _PORT, _BANDWIDTH, _POLICY_CONFLICT.
 */
export function parsePolicy(input: PolicyInput): NetworkPolicy {
  const asked = input.mode ?? "allow-all";
  const mode = modes.find((known) => known === asked);
  if (mode === undefined) {
    throw invalid(
      "NETWORK_POLICY",
      `Cannot use ${JSON.stringify(asked)} as a network policy`,
      "There is no policy of that name.",
      `Use one of: ${modes.join(", ")}.`,
    );
  }
  const policy: NetworkPolicy = {
    mode,
    allowedDomains: unique(entries(input.allowedDomains, "DOMAIN", "domain").map(parseDomain)),
    allowedCidrs: unique(entries(input.allowedCidrs, "CIDR", "CIDR").map(parseCidrText)),
    deniedCidrs: unique(entries(input.deniedCidrs, "CIDR", "CIDR").map(parseCidrText)),
    allowedPorts: portList(input.allowedPorts),
    allowHostPorts: portList(input.allowHostPorts),
    allowIcmp: input.allowIcmp ?? false,
    allowUdp: input.allowUdp ?? false,
    ...(input.bandwidth === undefined ? {} : { bandwidthMbit: parseBandwidth(input.bandwidth) }),
  };
  const lists =
    policy.allowedDomains.length + policy.allowedCidrs.length + policy.deniedCidrs.length > 0;
  const openings =
    policy.allowedPorts.length + policy.allowHostPorts.length > 0 ||
    policy.allowIcmp ||
    policy.allowUdp;
  if ((mode === "deny-all" || mode === "none") && (lists || openings)) {
    throw invalid(
      "POLICY_CONFLICT",
      `Cannot combine the network policy ${mode} with anything allowed or denied`,
      `${mode} closes everything, so the lists would have no effect.`,
      "Use the policy custom with the lists, or leave the lists out.",
    );
  }
  if (mode === "none" && policy.bandwidthMbit !== undefined) {
    throw invalid(
      "POLICY_CONFLICT",
      "Cannot limit the bandwidth of a VM without network",
      "The policy none leaves no network card.",
      "Leave one of the two out.",
    );
  }
  if (
    policy.allowedPorts.length > 0 &&
    policy.allowedDomains.length + policy.allowedCidrs.length === 0
  ) {
    throw invalid(
      "POLICY_CONFLICT",
      `Cannot allow the ports ${policy.allowedPorts.join(", ")} of nothing`,
      "Ports narrow what names and CIDRs allow, and none of those is given.",
      "Add --allowed-domain, or --allowed-cidr 0.0.0.0/0,::/0 for these ports everywhere.",
    );
  }
  if (mode === "allow-all" && lists) policy.mode = "custom";
  return policy;
}

/** Ports from a comma list or a list. */
function portList(input: string | readonly (string | number)[] | undefined): number[] {
  const list = typeof input === "string" ? input : input?.map(String);
  return unique(entries(list, "PORT", "port").map(parsePort));
}

/** Without duplicates, order kept. */
function unique<T>(list: T[]): T[] {
  return [...new Set(list)];
}

/** Whether two published ports cannot both be listened on. */
function clash(a: PublishedPort, b: PublishedPort): boolean {
  const wild = (address: string): boolean => address === "0.0.0.0" || address === "::";
  return (
    a.protocol === b.protocol &&
    a.hostPort === b.hostPort &&
    (a.hostAddress === b.hostAddress || wild(a.hostAddress) || wild(b.hostAddress))
  );
}

/** One of `8080`, `8080:80`, `0.0.0.0:8080:80`, `[::1]:8080:80`, each with `/tcp` or `/udp`. */
function parsePublished(text: string): PublishedPort {
  const match = /^(?:(\[[^\]]+\]|[^:[\]]+):(?=[^:]*:))?(?:([^:]*):)?([^:]*?)(?:\/(tcp|udp))?$/.exec(
    text,
  );
  const guestPort = parsePort(match?.[3] ?? text);
  const hostPort = match?.[2] === undefined ? guestPort : parsePort(match[2]);
  const address = parseAddress((match?.[1] ?? "127.0.0.1").replace(/^\[|\]$/g, ""));
  if (address === undefined) {
    throw invalid(
      "PORT",
      `Cannot publish ${JSON.stringify(text)}`,
      `${JSON.stringify(match?.[1])} is not an address of the host.`,
      "Write ADDRESS:HOSTPORT:GUESTPORT, for example 0.0.0.0:8080:80 or [::1]:8080:80.",
    );
  }
  return {
    protocol: match?.[4] === "udp" ? "udp" : "tcp",
    hostAddress: formatAddress(address),
    hostPort,
    guestPort,
  };
}

/**
 * Published ports from a comma list or repeated options.
 * Throws ERR_VALIDATION_PORT, and ERR_VALIDATION_PORT_CONFLICT when two cannot coexist.
 */
export function parsePublishedPorts(input: ListInput): PublishedPort[] {
  if (input === "") return [];
  const pieces = (typeof input === "string" ? [input] : (input ?? [])).flatMap((piece) =>
    piece.split(",").map((part) => part.trim()),
  );
  const ports = pieces.map(parsePublished);
  for (const [index, port] of ports.entries()) {
    if (ports.slice(0, index).some((earlier) => clash(earlier, port))) {
      throw invalid(
        "PORT_CONFLICT",
        `Cannot publish port ${port.hostPort}/${port.protocol} of the host twice`,
        "Two published ports use it.",
        "Give each published port its own port of the host.",
      );
    }
  }
  return ports;
}

/** Refuse published ports for a VM without network. Throws ERR_VALIDATION_POLICY_CONFLICT. */
export function checkPortsAgainstPolicy(
  policy: NetworkPolicy,
  ports: readonly PublishedPort[],
): void {
  if (policy.mode !== "none" || ports.length === 0) return;
  throw invalid(
    "POLICY_CONFLICT",
    "Cannot publish ports of a VM without network",
    "The policy none leaves no network card.",
    "Use deny-all: published ports work under it, and the guest reaches nothing.",
  );
}
