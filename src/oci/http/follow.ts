/** Redirects (RFC 9110, section 15.4), with credentials that stay where they belong. */
import { PullFailure, safeUrl } from "./failure.ts";
import { isLoopback } from "../../util/hosts/loopback.ts";
import type { Answer, Transport, TransportRequest } from "./transport.ts";

/** As many as Go's client follows, which registries are tried with. */
const MAX_REDIRECTS = 10;

/** A request that may be redirected. */
export interface FollowedRequest extends TransportRequest {
  /** Header for those whom the credentials are for, see {@link isSameParty}. */
  authorization?: string | undefined;
}

/** Whether what is meant for one address may be sent to another: the same origin, or it with TLS. */
export function isSameParty(meant: URL, other: URL): boolean {
  if (meant.origin === other.origin) return true;
  const upgraded = meant.protocol === "http:" && other.protocol === "https:";
  return upgraded && meant.hostname === other.hostname && other.port === "";
}

/**
 * Send a request and follow redirects to the answer behind them. Credentials, and bodies, which
 * hold some, go to the same party only. Throws PullFailure.
 */
export async function follow(
  transport: Transport,
  start: URL,
  request: FollowedRequest,
): Promise<Answer> {
  const { authorization, ...rest } = request;
  let sent: TransportRequest = rest;
  let url = start;
  for (let hops = 0; hops <= MAX_REDIRECTS; hops += 1) {
    const own = authorization !== undefined && isSameParty(start, url);
    const headers = { ...sent.headers, ...(own ? { authorization } : {}) };
    const answer = await transport.request(url, { ...sent, headers });
    const { status } = answer;
    const location = answer.headers["location"];
    if (![301, 302, 303, 307, 308].includes(status) || location === undefined) return answer;
    answer.discard();
    const next = addressOf(location, url);
    if (sent.method === "POST" && status < 307) {
      // As browsers and Go do it: the answer is fetched from there.
      sent = sent.signal === undefined ? {} : { signal: sent.signal };
    } else if (sent.body !== undefined && !isSameParty(start, next)) {
      throw redirectFailure(url, `what was sent to it on to ${safeUrl(next)}`);
    }
    url = next;
  }
  throw redirectFailure(start, `more than ${MAX_REDIRECTS} times`);
}

/** Where a redirect or a Location leads; never from TLS to no TLS. */
export function addressOf(location: string, url: URL): URL {
  // Header values come as bytes; addresses that are not ASCII are UTF-8.
  const text = Buffer.from(location, "latin1").toString("utf8");
  if (!URL.canParse(text, url.href)) throw redirectFailure(url, "to something that is no address");
  const next = new URL(text, url);
  const downgrade = url.protocol === "https:" && next.protocol !== "https:";
  const plain = next.protocol === "http:" && (!downgrade || isLoopback(next.hostname));
  if (next.protocol !== "https:" && !plain) {
    throw redirectFailure(url, `from TLS to ${safeUrl(next)}`);
  }
  return next;
}

/** The error for a redirect that is not followed. */
function redirectFailure(url: URL, how: string): PullFailure {
  return new PullFailure(
    {
      code: "ERR_IMAGE_REDIRECT",
      message: `Cannot get ${safeUrl(url)}`,
      why: `The server redirects ${how}.`,
      fix: "Tell the registry's operator, or use another registry.",
    },
    false,
  );
}
