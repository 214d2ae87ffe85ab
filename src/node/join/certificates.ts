/** Certificates from the cluster: requested, waited for, and what is used meanwhile. */
import { X509Certificate, createHash, generateKeyPairSync, randomBytes, sign } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { VmsanError } from "../../model/errors.ts";
import { certificateRequestSchema } from "../../schema/kubernetes-list.ts";
import { validate } from "../../schema/validate.ts";
import { apiPath, isStatus } from "../../kube/api-server.ts";
import type { ApiServer } from "../../kube/api-server.ts";
import { ECDSA_SHA256, SEQUENCE, alternativeNames, bits, der, nameOf, pem } from "./csr.ts";
import type { Subject } from "./csr.ts";

/** A certificate with its key, PEM. */
export interface KeyedCertificate {
  cert: string;
  key: string;
}

/** Who signs, and for what. */
const SIGNERS = {
  client: {
    signer: "kubernetes.io/kube-apiserver-client-kubelet",
    usages: ["digital signature", "client auth"],
  },
  serving: {
    signer: "kubernetes.io/kubelet-serving",
    usages: ["digital signature", "server auth"],
  },
} as const;

const GROUP = "certificates.k8s.io/v1";
/** Pauses between looks, in milliseconds. */
const LOOK_MS = 500;
const LONGEST_LOOK_MS = 10_000;

/**
 * Have a request signed by the cluster; waits until somebody has approved it.
 * @param request PEM
 * @throws ERR_NODE_CERTIFICATE when it is denied
 */
export async function requestCertificate(
  api: ApiServer,
  kind: keyof typeof SIGNERS,
  request: string,
  signal: AbortSignal,
): Promise<string> {
  const { signer, usages } = SIGNERS[kind];
  // Named by what it asks for: the same request is not made twice.
  const name = `vmsan-${kind}-${createHash("sha256").update(request).digest("hex").slice(0, 24)}`;
  const path = apiPath(GROUP, "certificatesigningrequests");
  const body = {
    apiVersion: GROUP,
    kind: "CertificateSigningRequest",
    metadata: { name },
    spec: { request: Buffer.from(request).toString("base64"), signerName: signer, usages },
  };
  try {
    await api.request("POST", path, { body, signal });
  } catch (error) {
    if (!isStatus(error, 409)) throw error;
  }
  for (let wait = LOOK_MS; ; wait = Math.min(wait * 1.5, LONGEST_LOOK_MS)) {
    const reply = await api.request("GET", `${path}/${name}`, { signal });
    const { status } = validate(certificateRequestSchema, reply, name, "ERR_NODE_OBJECT");
    if (status?.certificate) return Buffer.from(status.certificate, "base64").toString("utf8");
    const refusal = status?.conditions?.find(({ type }) => type === "Denied" || type === "Failed");
    if (refusal !== undefined) {
      throw new VmsanError({
        code: "ERR_NODE_CERTIFICATE",
        message: `The cluster gives no certificate for ${name}`,
        why: `${refusal.type}: ${refusal.message ?? refusal.reason ?? ""}`,
        fix: "Ask who has denied it; then begin anew.",
      });
    }
    await sleep(wait, undefined, { signal });
  }
}

/** The moment from which on a certificate is to be replaced: most of its time has passed. */
export function renewalOf(cert: string): number {
  const { validFrom, validTo } = new X509Certificate(cert);
  const from = Date.parse(validFrom);
  return from + (Date.parse(validTo) - from) * 0.75;
}

/** Days that a certificate of its own holds. */
const OWN_DAYS = 365;

/**
 * A certificate that nobody has signed but its own key: shown until the cluster's is there.
 * @param days from now on; it holds since an hour ago, as clocks differ
 */
export function selfSigned(subject: Subject, days = OWN_DAYS): KeyedCertificate {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const time = (date: Date): Buffer =>
    der(0x18, Buffer.from(date.toISOString().replaceAll(/[-:T]|\.\d+/g, "")));
  const name = nameOf(subject);
  const now = Date.now();
  const body = der(
    SEQUENCE,
    der(0xa0, der(0x02, Buffer.from([2]))),
    der(0x02, Buffer.concat([Buffer.from([1]), randomBytes(15)])),
    ECDSA_SHA256,
    name,
    der(SEQUENCE, time(new Date(now - 3_600_000)), time(new Date(now + days * 86_400_000))),
    name,
    publicKey.export({ type: "spki", format: "der" }),
    der(0xa3, der(SEQUENCE, alternativeNames(subject.hosts ?? []))),
  );
  const signature = sign("sha256", body, { key: privateKey, dsaEncoding: "der" });
  return {
    cert: pem("CERTIFICATE", der(SEQUENCE, body, ECDSA_SHA256, bits(signature))),
    key: privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
  };
}
