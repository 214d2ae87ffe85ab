/** Joining: with a token that was made for it, a host gets a certificate of its own. */
import { X509Certificate, createHash } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { text as readAll } from "node:stream/consumers";
import { parse } from "yaml";
import { VmsanError } from "../../model/errors.ts";
import { kubeconfigSchema } from "../../schema/kubeconfig.ts";
import { contentSchema } from "../../schema/pod.ts";
import { validate } from "../../schema/validate.ts";
import { layoutOf, vmsanDir } from "../../util/paths.ts";
import { invalid } from "../../util/units.ts";
import { readGiven } from "../given.ts";
import { hostNodeName } from "../host/registration.ts";
import { apiPath } from "../../kube/api-server.ts";
import { KubeClient } from "../../kube/client.ts";
import type { Identity, TlsIdentity } from "../../kube/identity.ts";
import { requestCertificate } from "./certificates.ts";
import { newKeyAndRequest } from "./csr.ts";
import { joinedFile, saveJoined } from "./joined.ts";

/** How a host joins. */
export interface JoinOptions {
  /** Of the API server. */
  url: string;
  /** Bootstrap token `ID.SECRET`; `-`: on standard input. */
  token: string;
  /** Path of the authority's certificates, PEM. */
  ca?: string;
  /** `sha256:HEX` of the authority's public key. */
  caCertHash?: string;
  name?: string;
  /** VMSAN_DIR; default from the environment. */
  dir?: string;
  signal: AbortSignal;
}

function bearer(url: string, tls: TlsIdentity, token: string): Identity {
  return {
    url,
    tls: () => tls,
    headers: async () =>
      await Promise.resolve<Record<string, string>>(
        token === "" ? {} : { authorization: `Bearer ${token}` },
      ),
    refused: () => false,
  };
}

/** Certificates in a PEM file. */
const CERTIFICATES = /-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g;

/** How a certificate's key is named. */
function keyDigest({ publicKey }: X509Certificate): string {
  const spki = publicKey.export({ type: "spki", format: "der" });
  return `sha256:${createHash("sha256").update(spki).digest("hex")}`;
}

/**
 * The authority's certificate, as a cluster made by kubeadm tells everybody; believed because of its
 * key's digest, which came by another way.
 */
async function discover(url: string, hash: string, signal: AbortSignal): Promise<string> {
  const api = new KubeClient(bearer(url, { rejectUnauthorized: false }, ""));
  try {
    const path = apiPath("v1", "namespaces", "kube-public", "configmaps", "cluster-info");
    const reply = await api.request("GET", path, { signal });
    const { data } = validate(contentSchema, reply, "cluster-info", "ERR_NODE_OBJECT");
    const config = validate(
      kubeconfigSchema,
      parse(data?.["kubeconfig"] ?? "", { maxAliasCount: 0 }),
      "kubeconfig of cluster-info",
      "ERR_NODE_KUBECONFIG",
    );
    const encoded = config.clusters?.[0]?.cluster["certificate-authority-data"] ?? "";
    const all = Buffer.from(encoded, "base64").toString("utf8").match(CERTIFICATES) ?? [];
    const found = all.map((pem) => ({ pem, digest: keyDigest(new X509Certificate(pem)) }));
    // Whoever answers may have put another one beside the right one.
    const meant = found.filter(({ digest }) => digest === hash.toLowerCase());
    if (meant.length > 0) return meant.map(({ pem }) => `${pem}\n`).join("");
    throw new VmsanError({
      code: "ERR_NODE_IDENTITY",
      message: `${url} is not the cluster that was meant`,
      why: `Its authority's key has the digest ${found[0]?.digest ?? "of nothing: it tells of none"}.`,
      fix: "Check the address and --ca-cert-hash; somebody may be in between.",
    });
  } finally {
    api.close();
  }
}

async function authority(options: JoinOptions): Promise<string> {
  const { ca, caCertHash, url, signal } = options;
  if (ca !== undefined) return await readGiven("ca", ca);
  if (caCertHash !== undefined && /^sha256:[0-9a-f]{64}$/i.test(caCertHash)) {
    return await discover(url, caCertHash, signal);
  }
  throw invalid(
    "FLAGS",
    "ca-cert-hash",
    caCertHash ?? "",
    "The cluster's authority must be known, or anybody could answer for it.",
    "Give --ca FILE, or --ca-cert-hash sha256:HEX.",
  );
}

/**
 * Make this host a node of a cluster: its certificate is there afterwards.
 * @throws ERR_VALIDATION_FLAGS, ERR_NODE_CERTIFICATE, ERR_NODE_API, ApiError
 */
export async function joinCluster(
  options: JoinOptions,
): Promise<{ name: string; kubeconfig: string }> {
  const { url: given, signal, name = hostNodeName() } = options;
  const url = given.replace(/\/+$/, "");
  if (!URL.canParse(url) || !url.startsWith("https://")) {
    throw invalid(
      "FLAGS",
      "URL",
      url,
      "It takes https://HOST:PORT.",
      "For example: https://10.0.0.1:6443.",
    );
  }
  const token = (options.token === "-" ? await readAll(process.stdin) : options.token).trim();
  if (!/^[a-z0-9]{6}\.[a-z0-9]{16}$/.test(token)) {
    throw invalid("FLAGS", "token", "…", "It takes ID.SECRET.", "Make one: kubeadm token create.");
  }
  const directory = layoutOf(options.dir ?? vmsanDir()).node;
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const ca = await authority(options);
  const { key, request } = newKeyAndRequest({
    commonName: `system:node:${name}`,
    organization: "system:nodes",
  });
  const api = new KubeClient(bearer(url, { ca }, token));
  try {
    const cert = await requestCertificate(api, "client", request, signal);
    await saveJoined(directory, { url, ca, cert, key });
  } finally {
    api.close();
  }
  return { name, kubeconfig: joinedFile(directory) };
}
