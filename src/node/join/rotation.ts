/** A node's client certificate, anew before it ends. */
import { X509Certificate } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { Log } from "../../util/log.ts";
import type { ApiServer } from "../../kube/api-server.ts";
import { renewalOf, requestCertificate } from "./certificates.ts";
import { newKeyAndRequest } from "./csr.ts";
import { saveJoined } from "./joined.ts";
import type { RenewableIdentity } from "./joined.ts";

/** Milliseconds until a renewal is tried again that has failed. */
const AGAIN_MS = 60_000;

/** Renew an identity for as long as the signal lets it. Never throws. */
export async function rotate(
  identity: RenewableIdentity,
  api: ApiServer,
  directory: string,
  log: Log,
  signal: AbortSignal,
): Promise<void> {
  let wait = renewalOf(identity.cert) - Date.now();
  while (!signal.aborted) {
    // AbortError: over.
    await sleep(Math.min(Math.max(wait, 1_000), 2 ** 31 - 1), undefined, {
      signal,
      ref: false,
    }).catch(() => undefined);
    if (signal.aborted) return;
    if (renewalOf(identity.cert) > Date.now()) continue;
    try {
      const { subject } = new X509Certificate(identity.cert);
      const commonName = /^CN=(.+)$/m.exec(subject)?.[1] ?? "";
      const { key, request } = newKeyAndRequest({ commonName, organization: "system:nodes" });
      const cert = await requestCertificate(api, "client", request, signal);
      const ca = String(identity.tls().ca);
      const next = { url: identity.url, ca, cert, key };
      await saveJoined(directory, next);
      identity.replace(next);
      log.info("this node's certificate has been renewed");
      wait = renewalOf(cert) - Date.now();
    } catch (error) {
      if (!signal.aborted) log.error("cannot renew this node's certificate", error);
      wait = AGAIN_MS;
    }
  }
}
