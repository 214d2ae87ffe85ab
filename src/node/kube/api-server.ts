/** What this node needs of a cluster's API server: requests, and watches that go on for ever. */

/** What a request carries. */
export interface ApiRequest {
  /** Sent as JSON. */
  body?: unknown;
  /** Content type of the body; default `application/json`. A PATCH has to say which kind it is. */
  type?: string;
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
   * A request with one JSON reply.
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
