/** Who this process is to an API server: where that is, whom it trusts, and what it shows. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { SecureContextOptions } from "node:tls";
import { VmsanError } from "../model/errors.ts";
import { bracketed } from "../util/hosts/bracketed.ts";

/** What a connection is made with. */
export interface TlsIdentity extends Pick<SecureContextOptions, "ca" | "cert" | "key"> {
  /** The name that the server's certificate is to have, when it is not that of the URL. */
  servername?: string;
  /** False: whoever answers is believed. */
  rejectUnauthorized?: boolean;
}

/** An identity, which may get other certificates and tokens while it is used. */
export interface Identity {
  /** `https://HOST:PORT[/PATH]`. */
  readonly url: string;
  /** The same object as long as connections need not be made anew. */
  tls(): TlsIdentity;
  /** Headers of each request. */
  headers(): Promise<Record<string, string>>;
  /** The server has not accepted it: whatever is kept of tokens is read again. @returns whether that may help */
  refused(): boolean;
}

/** How long a token that was read from a file is used, in milliseconds. */
const TOKEN_MS = 60_000;

/** A token in a file that others renew. */
export class TokenFile {
  private readonly path: string;
  private token = "";
  private readAt = -Infinity;

  constructor(path: string) {
    this.path = path;
  }

  /** The token as it is now. */
  async read(): Promise<string> {
    if (performance.now() - this.readAt < TOKEN_MS) return this.token;
    this.token = (await readFile(this.path, "utf8")).trim();
    this.readAt = performance.now();
    return this.token;
  }

  /** Read it again the next time. @returns whether it was not just read */
  forget(): boolean {
    const old = performance.now() - this.readAt > 1_000;
    this.readAt = -Infinity;
    return old;
  }
}

/** Where a pod finds the ServiceAccount that it runs as. */
const SERVICE_ACCOUNT_DIR = "/var/run/secrets/kubernetes.io/serviceaccount";

/**
 * The ServiceAccount of the pod that this process runs in.
 * @throws ERR_NODE_IDENTITY outside of one
 */
export async function serviceAccount(
  env: NodeJS.ProcessEnv,
  dir = SERVICE_ACCOUNT_DIR,
): Promise<Identity> {
  const { KUBERNETES_SERVICE_HOST: host = "", KUBERNETES_SERVICE_PORT: port = "443" } = env;
  if (host === "") {
    throw new VmsanError({
      code: "ERR_NODE_IDENTITY",
      message: "Cannot find the cluster",
      why: "Neither a kubeconfig was given, nor did this host join a cluster, nor is this process in a pod (KUBERNETES_SERVICE_HOST).",
      fix: "vmsan node join URL --token TOKEN, or vmsan node run --kubeconfig FILE.",
    });
  }
  const file = new TokenFile(join(dir, "token"));
  const tls = { ca: await readFile(join(dir, "ca.crt"), "utf8") };
  return {
    url: `https://${bracketed(host)}:${port}`,
    tls: () => tls,
    headers: async () => ({ authorization: `Bearer ${await file.read()}` }),
    refused: () => file.forget(),
  };
}
