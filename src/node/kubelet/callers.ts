/**
 * Who asks this node, and whether they may: a certificate of the cluster's authority, or a token that the API server
 * knows; in both cases the API server says what they may do. Nobody else is answered.
 */
import { createHash } from "node:crypto";
import type { IncomingMessage } from "node:http";
import type { TLSSocket } from "node:tls";
import { VmsanError } from "../../model/errors.ts";
import type { ApiServer } from "../../kube/api-server.ts";

/** Whom a request comes from. */
interface Caller {
  username: string;
  uid?: string;
  groups: string[];
  extra?: Record<string, string[]>;
}

/** What a request needs to be allowed, one of {@link Action.subresources} at least. */
export interface Action {
  verb: string;
  /** Of this node, e.g. `proxy`. */
  subresources: readonly string[];
  /** Other nodes may alone, by their certificates. */
  nodesOnly?: boolean;
}

/** How long an answer of the API server holds, in milliseconds. */
const KNOWN_MS = { yes: 60_000, no: 5_000 };

/** Most answers that are remembered. */
const MAX_KNOWN = 2_000;

/** Longest token that is looked at. */
const MAX_TOKEN = 16 << 10;

/** Answers that hold for a while; the oldest go. */
class Known<T> {
  private readonly values = new Map<string, { value: T | undefined; until: number }>();

  /** A value that is known, or what is found out now. */
  async get(key: string, ask: () => Promise<T | undefined>): Promise<T | undefined> {
    const known = this.values.get(key);
    if (known !== undefined && known.until > performance.now()) return known.value;
    const value = await ask();
    this.values.delete(key);
    const holds = value === undefined ? KNOWN_MS.no : KNOWN_MS.yes;
    this.values.set(key, { value, until: performance.now() + holds });
    const [oldest] = this.values.keys();
    if (this.values.size > MAX_KNOWN && oldest !== undefined) this.values.delete(oldest);
    return value;
  }
}

function unauthorized(why: string): VmsanError {
  return new VmsanError({
    code: "ERR_NODE_UNAUTHORIZED",
    message: "This node does not know the caller",
    why,
    fix: "Ask through the API server, or send a token that it knows.",
  });
}

/** Decides about callers for one node. */
export class Callers {
  private readonly api: ApiServer;
  private readonly node: string;
  private readonly tokens = new Known<Caller>();
  private readonly allowed = new Known<true>();

  /** @param node the node's name in the cluster */
  constructor(api: ApiServer, node: string) {
    this.api = api;
    this.node = node;
  }

  /** Let a request through. @throws ERR_NODE_UNAUTHORIZED, ERR_NODE_FORBIDDEN */
  async admit(request: IncomingMessage, action: Action): Promise<void> {
    const shown = certified(request.socket as TLSSocket);
    const caller = shown ?? (await this.byToken(request));
    if (action.nodesOnly === true && (shown === undefined || !isNode(shown))) {
      throw this.forbidden(caller, action, "Other nodes of the cluster may alone.");
    }
    for (const subresource of action.subresources) {
      if (await this.may(caller, action.verb, subresource)) return;
    }
    throw this.forbidden(caller, action, "The API server's rules do not allow it.");
  }

  private forbidden({ username }: Caller, { verb, subresources }: Action, why: string): VmsanError {
    return new VmsanError({
      code: "ERR_NODE_FORBIDDEN",
      message: `${username.slice(0, 200)} may not ${verb} nodes/${subresources.join(" or nodes/")} of ${this.node}`,
      why,
      fix: "Bind a role with that verb and resource to the caller.",
    });
  }

  private async byToken(request: IncomingMessage): Promise<Caller> {
    const [, token] = /^Bearer +(\S+)$/i.exec(request.headers.authorization ?? "") ?? [];
    if (token === undefined) {
      throw unauthorized("It shows neither a certificate of the cluster nor a token.");
    }
    if (token.length > MAX_TOKEN) throw unauthorized("The token is too long.");
    const key = createHash("sha256").update(token).digest("hex");
    const caller = await this.tokens.get(key, async () => await this.review(token));
    if (caller === undefined) throw unauthorized("The API server does not know the token.");
    return caller;
  }

  private async review(token: string): Promise<Caller | undefined> {
    type Review = {
      status?: {
        authenticated?: boolean;
        user?: {
          username?: string;
          uid?: string;
          groups?: string[];
          extra?: Record<string, string[]>;
        };
      };
    };
    const { status } = (await this.api.request(
      "POST",
      "/apis/authentication.k8s.io/v1/tokenreviews",
      {
        body: {
          apiVersion: "authentication.k8s.io/v1",
          kind: "TokenReview",
          spec: { token },
        },
      },
    )) as Review;
    const user = status?.user;
    if (status?.authenticated !== true || user?.username === undefined) return undefined;
    const { username, uid, groups = [], extra } = user;
    return {
      username,
      groups,
      ...(uid === undefined ? {} : { uid }),
      ...(extra === undefined ? {} : { extra }),
    };
  }

  private async may(caller: Caller, verb: string, subresource: string): Promise<boolean> {
    const key = JSON.stringify([caller, verb, subresource]);
    const answer = await this.allowed.get(key, async () => {
      const { username: user, ...rest } = caller;
      const reply = (await this.api.request(
        "POST",
        "/apis/authorization.k8s.io/v1/subjectaccessreviews",
        {
          body: {
            apiVersion: "authorization.k8s.io/v1",
            kind: "SubjectAccessReview",
            spec: {
              user,
              ...rest,
              resourceAttributes: {
                verb,
                version: "v1",
                resource: "nodes",
                subresource,
                name: this.node,
              },
            },
          },
        },
      )) as { status?: { allowed?: boolean; denied?: boolean } };
      return reply.status?.allowed === true && reply.status.denied !== true ? true : undefined;
    });
    return answer === true;
  }
}

/** Who a client's certificate says it is; undefined when it has shown none that the cluster's authority has signed. */
function certified(socket: TLSSocket): Caller | undefined {
  if (!socket.authorized) return undefined;
  // Names that stand there several times are lists, whatever the types say.
  const subject = (socket.getPeerCertificate() as { subject?: Record<string, string | string[]> })
    .subject;
  const username = [subject?.["CN"] ?? []].flat()[0];
  if (username === undefined || username === "") return undefined;
  return { username, groups: [...[subject?.["O"] ?? []].flat(), "system:authenticated"] };
}

/** Whether a certificate is a node's. */
function isNode({ username, groups }: Caller): boolean {
  return username.startsWith("system:node:") && groups.includes("system:nodes");
}
