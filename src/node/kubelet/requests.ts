/** What requests to this node mean, by method, path and query. Pure. */
import { VmsanError } from "../../model/errors.ts";
import type { PodLogOptions } from "../pods/running.ts";
import type { Action } from "./callers.ts";
import type { SessionWish } from "./remote/session.ts";

/** A container that a request is about. */
export interface Target {
  namespace: string;
  pod: string;
  /** Only the pod with this UID, where a request names one. */
  uid?: string;
  container?: string;
}

/** One request. */
export type KubeletRequest =
  | { kind: "exec" | "attach" | "portForward" | "containerLogs"; target: Target }
  | { kind: "pods" | "healthz" | "summary" | "resource" }
  | { kind: "blob"; digest: string };

/** Requests that do something in a pod, whatever their method is: looking at a node must not be enough for them. */
const ACTING = new Set(["exec", "attach", "portForward"]);

const WORDS: Record<string, { request: KubeletRequest; subresources: string[] }> = {
  "/pods": { request: { kind: "pods" }, subresources: ["pods", "proxy"] },
  "/runningpods": { request: { kind: "pods" }, subresources: ["pods", "proxy"] },
  "/healthz": { request: { kind: "healthz" }, subresources: ["healthz", "proxy"] },
  "/stats/summary": { request: { kind: "summary" }, subresources: ["stats"] },
  "/metrics/resource": { request: { kind: "resource" }, subresources: ["metrics"] },
};

const VERBS: Record<string, string> = { GET: "get", HEAD: "get", POST: "create" };

const BLOB = "/v2/node/blobs/";

/** What a request's method and path mean, and what its caller has to be allowed; undefined: nothing. */
export function readRequest(
  method: string,
  pathname: string,
): { request: KubeletRequest; action: Action } | undefined {
  const verb = VERBS[method];
  if (verb === undefined) return undefined;
  const path = pathname.length > 1 ? pathname.replace(/\/$/, "") : pathname;
  if (Object.hasOwn(WORDS, path)) {
    const { request, subresources } = WORDS[path] ?? {};
    if (request === undefined || subresources === undefined || verb !== "get") return undefined;
    return { request, action: { verb, subresources } };
  }
  if (path.startsWith(BLOB) && verb === "get") {
    return {
      request: { kind: "blob", digest: path.slice(BLOB.length) },
      action: { verb, subresources: ["blobs"], nodesOnly: true },
    };
  }
  const [kind = "", ...parts] = path.slice(1).split("/").map(decoded);
  if (parts.includes("")) return undefined;
  const target = targetOf(kind, parts);
  if (target === undefined) return undefined;
  const acting = ACTING.has(kind);
  if (!acting && verb !== "get") return undefined;
  return {
    request: { kind: kind as "exec", target },
    action: { verb: acting ? "create" : verb, subresources: ["proxy"] },
  };
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    // URIError: no name of anything.
    return "";
  }
}

function targetOf(kind: string, parts: readonly string[]): Target | undefined {
  const [namespace, pod, third, fourth, ...more] = parts;
  if (namespace === undefined || pod === undefined || more.length > 0) return undefined;
  if (kind === "portForward") {
    if (fourth !== undefined) return undefined;
    return { namespace, pod, ...(third === undefined ? {} : { uid: third }) };
  }
  if (kind === "containerLogs") {
    if (third === undefined || fourth !== undefined) return undefined;
    return { namespace, pod, container: third };
  }
  if (!ACTING.has(kind) || third === undefined) return undefined;
  if (fourth === undefined) return { namespace, pod, container: third };
  return { namespace, pod, uid: third, container: fourth };
}

/** A request that cannot be meant. */
export function badRequest(why: string): VmsanError {
  return new VmsanError({
    code: "ERR_NODE_REQUEST",
    message: "The request to this node is not usable",
    why,
    fix: "Ask through the API server, with kubectl or another client of Kubernetes.",
  });
}

function flag(query: URLSearchParams, name: string): boolean {
  const value = query.get(name);
  return value === "1" || value === "true";
}

/** The streams that a request for a session wants. @throws ERR_NODE_REQUEST when it wants none */
export function wishOf(query: URLSearchParams): SessionWish {
  const tty = flag(query, "tty");
  const wish = {
    stdin: flag(query, "input"),
    stdout: flag(query, "output"),
    // A terminal has one output.
    stderr: flag(query, "error") && !tty,
    tty,
  };
  if (wish.stdin || wish.stdout || wish.stderr) return wish;
  throw badRequest("It wants neither standard input nor output nor error output.");
}

function count(query: URLSearchParams, name: string, least: number): number | undefined {
  const text = query.get(name);
  if (text === null || text === "") return undefined;
  const value = /^\d{1,15}$/.test(text) ? Number(text) : -1;
  if (value >= least) return value;
  throw badRequest(`${name} is ${JSON.stringify(text.slice(0, 40))}; it takes a whole number.`);
}

/** What of a log is wanted. @throws ERR_NODE_REQUEST */
export function logOptionsOf(query: URLSearchParams): PodLogOptions {
  const sinceSeconds = count(query, "sinceSeconds", 1);
  const tailLines = count(query, "tailLines", 0);
  const limitBytes = count(query, "limitBytes", 1);
  const since = query.get("sinceTime") ?? "";
  const sinceTime = since === "" ? undefined : new Date(since);
  if (sinceTime !== undefined && Number.isNaN(sinceTime.getTime())) {
    throw badRequest(`sinceTime is ${JSON.stringify(since.slice(0, 40))}; it takes RFC 3339.`);
  }
  const stream = query.get("stream") ?? "";
  if (stream !== "" && stream !== "All") {
    throw badRequest(
      `stream is ${JSON.stringify(stream.slice(0, 40))}; both outputs come together.`,
    );
  }
  return {
    follow: flag(query, "follow"),
    previous: flag(query, "previous"),
    timestamps: flag(query, "timestamps"),
    ...(sinceSeconds === undefined ? {} : { sinceSeconds }),
    ...(sinceTime === undefined ? {} : { sinceTime }),
    ...(tailLines === undefined ? {} : { tailLines }),
    ...(limitBytes === undefined ? {} : { limitBytes }),
  };
}
