/**
 * kube/: a cluster's API server as a client sees it, for hosts that are its nodes and for VMs that are its pods:
 * who this process is there (kubeconfigs, tokens, plugins), requests, watches.
 *
 * api-server.ts: what others need of one: requests, and watches that go on for ever.
 */
import { VmsanError } from "../model/errors.ts";

/** What a request carries. */
export interface ApiRequest {
  /** Sent as JSON. */
  body?: unknown;
  /** Content type of the body; default `application/json`. A PATCH has to say which kind it is. */
  type?: string;
  /** Content type of the reply; default `application/json`. */
  accept?: string;
  /**
   * May be made again when it is not known whether it was carried out, as all but POST are: of what has its name in its body,
   * the second one is refused (409).
   */
  repeat?: boolean;
  signal?: AbortSignal;
}

/** Kinds of PATCH. */
export const PATCH_TYPE = {
  strategic: "application/strategic-merge-patch+json",
  merge: "application/merge-patch+json",
} as const;

/** What becomes of one object in a watched list. */
export type WatchStep =
  /** All objects as they are now: at the beginning, and whenever the watch could not go on. */
  | { kind: "all"; objects: unknown[] }
  | { kind: "set"; object: unknown }
  | { kind: "gone"; object: unknown };

/** A cluster's API server, as the identity that a kubeconfig names. */
export interface ApiServer {
  /** `https://HOST:PORT`. */
  readonly url: string;
  /**
   * A request with one JSON reply; one that the server is too busy for is made again.
   * @param path with its query, e.g. `/api/v1/nodes`
   * @throws ApiError with the server's status, ERR_NODE_API when it does not answer
   */
  request(method: string, path: string, options?: ApiRequest): Promise<unknown>;
  /**
   * The objects of a list and all that becomes of them. Ends by its signal alone.
   * @param path of the list, with its selectors
   */
  watch(path: string, signal: AbortSignal): AsyncIterable<WatchStep>;
}

/** The API server has refused a request. */
export class ApiError extends VmsanError {
  /** HTTP status. */
  readonly status: number;
  /** The server's word for it, e.g. `NotFound`; empty when it gave none. */
  readonly reason: string;

  constructor(status: number, reason: string, request: string, message: string) {
    super({
      code: "ERR_NODE_API_REFUSED",
      message: `The API server refused ${request}: ${status}${reason === "" ? "" : ` ${reason}`}`,
      why: message.slice(0, 500),
      fix:
        status === 401 || status === 403
          ? "Check whose credentials these are, and what they may do: kubectl auth can-i --list."
          : "See the API server's log.",
      details: { status },
    });
    this.status = status;
    this.reason = reason;
  }
}

/** Whether the API server has answered with that status. */
export function isStatus(error: unknown, ...statuses: readonly number[]): boolean {
  return error instanceof ApiError && statuses.includes(error.status);
}

/** Path of a namespaced or cluster-wide resource; words are encoded. */
export function apiPath(group: string, ...words: readonly string[]): string {
  const root = group.includes("/") ? `/apis/${group}` : `/api/${group}`;
  return [root, ...words.map(encodeURIComponent)].join("/");
}
