/** The certificate of this node's own server: the cluster's as soon as it has given one, and anew before it ends. */
import { X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { errnoOf } from "../../model/errors.ts";
import { keyedCertificateSchema } from "../../schema/kubeconfig.ts";
import { validate } from "../../schema/validate.ts";
import { writeFileAtomic } from "../../util/atomic.ts";
import type { Log } from "../../util/log.ts";
import type { ApiServer } from "../../kube/api-server.ts";
import type { KubeletServer } from "../kubelet/server.ts";
import { renewalOf, requestCertificate, selfSigned } from "./certificates.ts";
import type { KeyedCertificate } from "./certificates.ts";
import { newKeyAndRequest } from "./csr.ts";
import type { Subject } from "./csr.ts";

/** Milliseconds until a request is made again that was refused. */
const AGAIN_MS = 600_000;
/** Least milliseconds between requests, whatever a certificate says of its time. */
const LEAST_MS = 10_000;

/** What it is made of. */
export interface ServingParts {
  api: ApiServer;
  /** The node's name. */
  name: string;
  address: string;
  log: Log;
  /** Where the cluster's is kept for the next process. */
  directory: string;
  /** Given by the administrator: nothing is requested. */
  given: KeyedCertificate | undefined;
}

function subjectOf({ name, address }: ServingParts): Subject {
  return { commonName: `system:node:${name}`, organization: "system:nodes", hosts: [address] };
}

const keptFile = ({ directory }: ServingParts): string => join(directory, "serving.json");

/** What a process before has got, if it holds and is for this node. */
async function keptCertificate(parts: ServingParts): Promise<KeyedCertificate | undefined> {
  let text: string;
  try {
    text = await readFile(keptFile(parts), "utf8");
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
  const path = keptFile(parts);
  const kept = validate(keyedCertificateSchema, JSON.parse(text), path, "ERR_NODE_STORE");
  const read = new X509Certificate(kept.cert);
  const own = read.subject.split("\n").includes(`CN=system:node:${parts.name}`);
  const holds = read.checkIP(parts.address) !== undefined && renewalOf(kept.cert) > Date.now();
  return own && holds ? kept : undefined;
}

/** Keeps a server's certificate. */
export class ServingCertificates {
  current: KeyedCertificate;
  private readonly parts: ServingParts;
  private readonly over = new AbortController();
  /** Milliseconds since the epoch. */
  private renewAt: number;

  private constructor(parts: ServingParts, current: KeyedCertificate, renewAt: number) {
    this.parts = parts;
    this.current = current;
    this.renewAt = renewAt;
  }

  /** Have the one that was given, else the one that a process before has got, else one of its own. */
  static async load(parts: ServingParts): Promise<ServingCertificates> {
    if (parts.given !== undefined) return new ServingCertificates(parts, parts.given, Infinity);
    const kept = await keptCertificate(parts).catch((error: unknown) => {
      parts.log.error("cannot read the certificate of this node's server", error);
      return undefined;
    });
    if (kept !== undefined) return new ServingCertificates(parts, kept, renewalOf(kept.cert));
    return new ServingCertificates(parts, selfSigned(subjectOf(parts)), 0);
  }

  /** Request one for a server, and again before it ends. */
  begin(server: Pick<KubeletServer, "setCertificate">): void {
    if (this.renewAt !== Infinity) void this.keep(server);
  }

  private async keep(server: Pick<KubeletServer, "setCertificate">): Promise<void> {
    const { signal } = this.over;
    const { api, log } = this.parts;
    while (!signal.aborted) {
      const wait = this.renewAt - Date.now();
      if (wait > 0) {
        // AbortError: over.
        await sleep(Math.min(wait, 2 ** 31 - 1), undefined, { signal, ref: false }).catch(
          () => undefined,
        );
        continue;
      }
      try {
        const { key, request } = newKeyAndRequest(subjectOf(this.parts));
        const cert = await requestCertificate(api, "serving", request, signal);
        this.current = { cert, key };
        server.setCertificate(this.current);
        this.renewAt = Math.max(renewalOf(cert), Date.now() + LEAST_MS);
        log.info("the cluster has given this node's server a certificate");
        await writeFileAtomic(keptFile(this.parts), JSON.stringify(this.current));
      } catch (error) {
        if (signal.aborted) return;
        log.error("no certificate for this node's server", error);
        this.renewAt = Math.max(this.renewAt, Date.now() + AGAIN_MS);
      }
    }
  }

  /** Ask for no more. */
  close(): void {
    this.over.abort();
  }
}
