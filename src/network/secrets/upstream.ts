/** The way from the proxy to a server that secrets are for: whom to trust, and one agent a connection. */
import { Agent as HttpAgent } from "node:http";
import { Agent as HttpsAgent } from "node:https";
import tls, { type SecureContext } from "node:tls";
import type { SecretDomain } from "../../model/secret.ts";

/** Made once for each set of further authorities: parsing all of them takes a while. */
const contexts = new Map<string, SecureContext>();

/** Trust in the host's authorities, those that Node.js brings, and further ones (PEM). */
function trustIn(further: string | undefined): SecureContext {
  const key = further ?? "";
  let context = contexts.get(key);
  if (context === undefined) {
    const ca = [...tls.rootCertificates, ...tls.getCACertificates("system")];
    context = tls.createSecureContext({ ca: further === undefined ? ca : [...ca, further] });
    contexts.set(key, context);
  }
  return context;
}

/** Connections to one server at one address, one at a time; over TLS only to who proves its name. */
export function agentFor(
  to: SecretDomain,
  address: string,
  further: string | undefined,
): HttpAgent | HttpsAgent {
  const one = { keepAlive: true, maxSockets: 1, host: address, port: to.port };
  if (to.scheme === "http") return new HttpAgent(one);
  return new HttpsAgent({
    ...one,
    servername: to.host,
    secureContext: trustIn(further),
    rejectUnauthorized: true,
  });
}
