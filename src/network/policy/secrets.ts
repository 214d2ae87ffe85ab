/** Where secrets may be sent: the domains as people write them, and which of them a server is. Pure. */
import { VmsanError } from "../../model/errors.ts";
import type { SecretDomain, SecretPlace, SecretRule } from "../../model/secret.ts";
import { matchesDomain } from "./judge.ts";
import { parseDomain, parsePort } from "./parse.ts";

/** All places, in the order in which they are shown. */
export const secretPlaces: readonly SecretPlace[] = ["header", "query", "body"];

/** The port of a scheme's own. */
const defaultPort = { https: 443, http: 80 };

/** Ports that are vmsan's own business in every VM. */
const namePorts = [53, 853, 5353, 8853];

/** An ERR_VALIDATION_SECRET. */
export function badSecret(message: string, why: string, fix: string): VmsanError {
  return new VmsanError({ code: "ERR_VALIDATION_SECRET", message, why, fix });
}

/** `[https://|http://]host[:port]`. @throws ERR_VALIDATION_SECRET, ERR_VALIDATION_DOMAIN, ERR_VALIDATION_PORT */
export function parseSecretDomain(text: string): SecretDomain {
  const match = /^(?:(https?):\/\/)?([^/:]+)(?::(\d+))?$/i.exec(text.trim());
  if (match === null) {
    throw badSecret(
      `Cannot use ${JSON.stringify(text)} as a domain of a secret`,
      "It is not [http://|https://]NAME[:PORT].",
      "Write for example api.example.com, *.example.com or http://intern.example.com:8080.",
    );
  }
  const scheme = match[1]?.toLowerCase() === "http" ? "http" : "https";
  const port = match[3] === undefined ? defaultPort[scheme] : parsePort(match[3]);
  if (namePorts.includes(port)) {
    throw badSecret(
      `Cannot use ${JSON.stringify(text)} as a domain of a secret`,
      `Port ${port} is for names.`,
      "Name the port of a web server.",
    );
  }
  return { scheme, host: parseDomain(match[2] ?? ""), port };
}

/** A domain as {@link parseSecretDomain} reads it, no longer than it must be. */
export function formatSecretDomain({ scheme, host, port }: SecretDomain): string {
  const plain = scheme === "http" ? `http://${host}` : host;
  return port === defaultPort[scheme] ? plain : `${plain}:${port}`;
}

/** Whether a secret may be sent to a server. */
export function isFor(rule: SecretRule, to: SecretDomain): boolean {
  return rule.domains.some(
    ({ scheme, host, port }) =>
      scheme === to.scheme && port === to.port && matchesDomain([host], to.host),
  );
}

/** Whether any secret may be sent to a server of that name. */
export function isSecretName(rules: readonly SecretRule[], name: string): boolean {
  return rules.some(({ domains }) => domains.some(({ host }) => matchesDomain([host], name)));
}

/** Which protocols secrets are sent by on a port. */
export function schemesOn(rules: readonly SecretRule[], port: number): Set<string> {
  const domains = rules.flatMap((rule) => rule.domains);
  return new Set(domains.filter((domain) => domain.port === port).map(({ scheme }) => scheme));
}

/** All ports that secrets are sent to, ascending. */
export function secretPorts(rules: readonly SecretRule[]): number[] {
  const ports = rules.flatMap(({ domains }) => domains.map(({ port }) => port));
  return [...new Set(ports)].sort((a, b) => a - b);
}
