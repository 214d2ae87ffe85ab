/** Fields of HTTP heads that are between two neighbours. */

/** In lower case: of one connection alone, and never handed on (RFC 9110, section 7.6.1, and what is sent out of habit). */
export const HOP_BY_HOP: ReadonlySet<string> = new Set([
  "connection",
  "keep-alive",
  "proxy-authenticate",
  "proxy-authorization",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
]);
