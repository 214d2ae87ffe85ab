/** ConfigMaps, Secrets and tokens that a pod names, fetched when its VM is made. */
import { accountSchema, claimsSchema, contentSchema, tokenSchema } from "../../../schema/pod.ts";
import type { Pod } from "../../../schema/pod.ts";
import { validate } from "../../../schema/validate.ts";
import { apiPath, isStatus } from "../../../kube/api-server.ts";
import type { ApiServer } from "../../../kube/api-server.ts";
import { PodNotReadyError } from "../spec/failure.ts";

/** The shortest time for which an API server makes tokens. */
const SHORTEST_TOKEN_SECONDS = 600;

/** Keys and bytes of a ConfigMap or a Secret. */
export interface Content {
  values: Map<string, Buffer>;
  /** Keys of a ConfigMap's `binaryData`: files have them, variables do not. */
  binary: ReadonlySet<string>;
  type: string;
  /** Changes with it; empty: not known. */
  version: string;
  /** It stays as it is for as long as it is there. */
  immutable: boolean;
}

/** Kinds of objects whose content pods have. */
export type ContentKind = "configmaps" | "secrets";

/** A token and how long it holds. */
export interface AccountToken {
  token: string;
  /** Milliseconds since the epoch. */
  expiresAt: number;
}

/** Fetches what one pod names, each once. */
export class References {
  private readonly api: ApiServer;
  private readonly pod: Pod;
  private readonly known = new Map<string, Promise<Content | undefined>>();

  constructor(api: ApiServer, pod: Pod) {
    this.api = api;
    this.pod = pod;
  }

  /**
   * A ConfigMap's or Secret's content; undefined: there is none, and it is optional.
   * @throws PodNotReadyError when it has to be there
   */
  async content(kind: ContentKind, name: string, optional: boolean): Promise<Content | undefined> {
    const key = `${kind}/${name}`;
    const asked = this.known.get(key) ?? this.fetch(kind, name);
    this.known.set(key, asked);
    const content = await asked;
    if (content !== undefined || optional) return content;
    const what = kind === "secrets" ? "secret" : "configmap";
    throw new PodNotReadyError("CreateContainerConfigError", `${what} "${name}" not found`);
  }

  private async fetch(kind: string, name: string): Promise<Content | undefined> {
    const path = apiPath("v1", "namespaces", this.pod.metadata.namespace, kind, name);
    let value: unknown;
    try {
      value = await this.api.request("GET", path);
    } catch (error) {
      if (isStatus(error, 404)) return undefined;
      // The node may read a Secret only once the API server's authorizer has seen the pod that names it.
      if (!isStatus(error, 403)) throw error;
      throw new PodNotReadyError(
        "CreateContainerConfigError",
        `may not read ${kind} "${name}"`,
        error,
      );
    }
    const object = validate(contentSchema, value, path, "ERR_NODE_OBJECT");
    const { data, binaryData, type } = object;
    const encoding = kind === "secrets" ? "base64" : "utf8";
    const values = new Map<string, Buffer>();
    for (const [key, text] of Object.entries(data ?? {})) {
      values.set(key, Buffer.from(text, encoding));
    }
    for (const [key, text] of Object.entries(binaryData ?? {})) {
      values.set(key, Buffer.from(text, "base64"));
    }
    return {
      values,
      binary: new Set(Object.keys(binaryData ?? {})),
      type: type ?? "",
      version: object.metadata?.resourceVersion ?? "",
      immutable: object.immutable === true,
    };
  }

  /** UID of the pod's ServiceAccount. @throws ApiError when there is none, or this node may not know */
  async accountUid(): Promise<string> {
    try {
      const path = this.accountPath();
      const found = await this.api.request("GET", path);
      return validate(accountSchema, found, path, "ERR_NODE_OBJECT").metadata.uid;
    } catch (error) {
      // Nodes may ask since Kubernetes 1.34, about accounts of their own pods.
      if (!isStatus(error, 403)) throw error;
    }
    // Before that they had tokens of them, since 1.33 for whom the pod names alone; those say whose they are.
    const sources = this.pod.spec.volumes?.flatMap(({ projected }) => projected?.sources ?? []);
    const named = sources?.find(({ serviceAccountToken }) => serviceAccountToken);
    const audience = named?.serviceAccountToken?.audience ?? undefined;
    const { token } = await this.token(audience, SHORTEST_TOKEN_SECONDS);
    const claims = JSON.parse(Buffer.from(token.split(".")[1] ?? "", "base64url").toString());
    const { "kubernetes.io": own } = validate(claimsSchema, claims, "token", "ERR_NODE_OBJECT");
    return own.serviceaccount.uid;
  }

  private accountPath(...rest: string[]): string {
    const { metadata, spec } = this.pod;
    const account = spec.serviceAccountName ?? "default";
    return apiPath("v1", "namespaces", metadata.namespace, "serviceaccounts", account, ...rest);
  }

  /** A token of the pod's ServiceAccount, which ends with the pod. */
  async token(audience: string | undefined, seconds: number): Promise<AccountToken> {
    const { name, uid } = this.pod.metadata;
    const path = this.accountPath("token");
    const body = {
      apiVersion: "authentication.k8s.io/v1",
      kind: "TokenRequest",
      spec: {
        audiences: audience === undefined || audience === "" ? [] : [audience],
        expirationSeconds: seconds,
        boundObjectRef: { apiVersion: "v1", kind: "Pod", name, uid },
      },
    };
    const reply = await this.api.request("POST", path, { body });
    const { status } = validate(tokenSchema, reply, path, "ERR_NODE_OBJECT");
    const expires = Date.parse(status.expirationTimestamp ?? "");
    return {
      token: status.token,
      expiresAt: Number.isNaN(expires) ? Date.now() + seconds * 1000 : expires,
    };
  }
}
