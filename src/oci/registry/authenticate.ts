/** Answers to a registry's challenge: Basic, or a bearer token for one repository. */
import { VmsanError } from "../../model/errors.ts";
import { tokenSchema } from "../../schema/oci.ts";
import type { Credentials } from "./credentials.ts";
import { parseJson, validate } from "../documents/documents.ts";
import { PullFailure, safeUrl, statusFailure } from "../http/failure.ts";
import { follow } from "../http/follow.ts";
import type { FollowedRequest } from "../http/follow.ts";
import { isLoopback } from "../../util/hosts/loopback.ts";
import type { Transport } from "../http/transport.ts";

/** Largest token answer, in bytes. */
const TOKEN_LIMIT = 1 << 20;

/** One challenge of a WWW-Authenticate header (RFC 9110, section 11). */
export interface Challenge {
  scheme: string;
  parameters: Map<string, string>;
}

/** Parse a WWW-Authenticate header with one or several challenges. */
export function parseChallenges(header: string): Challenge[] {
  const challenges: Challenge[] = [];
  const token = /^\s*,?\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)(\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,]*)))?/;
  let rest = header.slice(0, 8192);
  for (;;) {
    const match = token.exec(rest);
    if (match === null) return challenges;
    rest = rest.slice(match[0].length);
    const [, name = "", assigned, quoted, bare] = match;
    if (assigned === undefined) {
      challenges.push({ scheme: name.toLowerCase(), parameters: new Map() });
    } else {
      const value = quoted === undefined ? (bare ?? "") : quoted.replace(/\\(.)/g, "$1");
      challenges.at(-1)?.parameters.set(name.toLowerCase(), value);
    }
  }
}

/**
 * What a token is asked for: the session's own scopes, whatever the challenge says (it may say
 * nothing, or be empty), and what the challenge names besides.
 */
function scopesOf(own: readonly string[], challenge: Challenge): string[] {
  const named = (challenge.parameters.get("scope") ?? "").split(" ");
  return [...new Set([...own, ...named])].filter((scope) => scope !== "");
}

/** Proves to one server, for one repository, who is asking. */
export class Authenticator {
  readonly #transport: Transport;
  readonly #credentials: () => Promise<Credentials | undefined>;
  readonly #scopes: readonly string[];
  readonly #plainAllowed: boolean;
  #header: Promise<string | undefined> = Promise.resolve(undefined);
  /** Counts answers, so that of several refused requests only one asks for a new token. */
  #generation = 0;

  /**
   * @param credentials looked up only once the server has asked for them
   * @param scopes e.g. `repository:library/node:pull`
   * @param plainAllowed whether the registry itself may be without TLS
   */
  constructor(
    transport: Transport,
    credentials: () => Promise<Credentials | undefined>,
    scopes: readonly string[],
    plainAllowed: boolean,
  ) {
    this.#transport = transport;
    this.#credentials = credentials;
    this.#scopes = scopes;
    this.#plainAllowed = plainAllowed;
  }

  /** The header to send now, with its generation for {@link answer}. */
  async authorization(): Promise<{ header: string | undefined; generation: number }> {
    return { header: await this.#header, generation: this.#generation };
  }

  /**
   * A request of that generation was refused: get what the challenge asks for.
   * @returns false when there is nothing better to send
   */
  async answer(challenge: string, generation: number, signal?: AbortSignal): Promise<boolean> {
    if (generation === this.#generation) {
      this.#generation += 1;
      this.#header = this.#respond(parseChallenges(challenge), signal);
      // Whoever awaits it sees the failure; nobody else must crash on it.
      this.#header.catch(() => undefined);
    }
    try {
      return (await this.#header) !== undefined;
    } catch (error) {
      this.#header = Promise.resolve(undefined);
      throw error;
    }
  }

  /** The Authorization header for the first challenge that can be met. */
  async #respond(challenges: Challenge[], signal?: AbortSignal): Promise<string | undefined> {
    const credentials = await this.#credentials();
    const bearer = challenges.find((challenge) => challenge.scheme === "bearer");
    if (bearer !== undefined) {
      return `Bearer ${await this.#fetchToken(bearer, credentials, signal)}`;
    }
    const basic = challenges.some((challenge) => challenge.scheme === "basic");
    return basic && credentials?.kind === "basic" ? basicHeader(credentials) : undefined;
  }

  /** Ask the token server that the challenge names. */
  async #fetchToken(
    challenge: Challenge,
    credentials: Credentials | undefined,
    signal?: AbortSignal,
  ): Promise<string> {
    const realm = challenge.parameters.get("realm") ?? "";
    if (!URL.canParse(realm)) throw realmError(realm, "It is not an address.");
    const url = new URL(realm);
    const plain = this.#plainAllowed || isLoopback(url.hostname);
    // A registry behind a proxy that takes TLS off may not know its own address.
    if (url.protocol === "http:" && !plain && url.port === "") url.protocol = "https:";
    if (url.protocol !== "https:" && !(url.protocol === "http:" && plain)) {
      throw realmError(realm, "It is without TLS, and credentials would be sent to it.");
    }
    const service = challenge.parameters.get("service");
    const query = new URLSearchParams();
    if (service !== undefined) query.set("service", service);
    for (const scope of scopesOf(this.#scopes, challenge)) query.append("scope", scope);
    if (credentials?.kind === "identity") {
      query.set("grant_type", "refresh_token");
      query.set("client_id", "vmsan");
      query.set("refresh_token", credentials.token);
      const headers = { "content-type": "application/x-www-form-urlencoded" };
      return this.#readToken(url, { method: "POST", headers, body: String(query) }, signal);
    }
    for (const [name, value] of query) url.searchParams.append(name, value);
    const authorization = credentials === undefined ? undefined : basicHeader(credentials);
    return this.#readToken(url, { authorization }, signal);
  }

  /** Send a token request and read its answer. */
  async #readToken(url: URL, request: FollowedRequest, signal?: AbortSignal): Promise<string> {
    const wanted = signal === undefined ? request : { ...request, signal };
    const answer = await follow(this.#transport, url, wanted);
    const bytes = await answer.read(TOKEN_LIMIT, signal);
    if (answer.status < 200 || answer.status > 299) {
      // The body is left out: a token server may quote what it was sent.
      throw statusFailure(answer.status, url, "", answer.headers["retry-after"]);
    }
    if (bytes === undefined) throw realmError(safeUrl(url), "Its answer is larger than 1 MiB.");
    try {
      const value = parseJson(bytes, "ERR_IMAGE_TOKEN", "token answer");
      return validate(tokenSchema, value, "ERR_IMAGE_TOKEN", "token answer");
    } catch (error) {
      // The parser's own words may quote the token.
      if (error instanceof VmsanError) throw realmError(safeUrl(url), "Its answer holds no token.");
      throw error;
    }
  }
}

/** The header of Basic authentication. */
function basicHeader(credentials: Credentials): string {
  if (credentials.kind !== "basic") throw new TypeError("Identity tokens are not sent as Basic");
  const pair = `${credentials.username}:${credentials.password}`;
  return `Basic ${Buffer.from(pair).toString("base64")}`;
}

/** The error for a token server that cannot be used. */
function realmError(realm: string, why: string): PullFailure {
  return new PullFailure(
    {
      code: "ERR_IMAGE_TOKEN",
      message: `Cannot get a token from ${JSON.stringify(realm.split("?")[0] ?? "")}`,
      why,
      fix: "Tell the registry's operator; its WWW-Authenticate header leads there.",
    },
    false,
  );
}
