/** Calls to the gateway's native API (docs/openapi.json) with this tab's key. */
import type { ReplyLine } from "../../model/api.ts";
import type { ErrorInfo } from "../../model/errors.ts";
import type { ProgressEvent } from "../../model/progress.ts";
import { currentKey } from "./key.ts";

/** A failure as the API tells it. */
export class ApiError extends Error {
  readonly info: ErrorInfo;
  /** HTTP status; 0 when nobody answered. */
  readonly status: number;
  constructor(info: ErrorInfo, status: number) {
    super(info.message);
    this.info = info;
    this.status = status;
  }
}

/** Anything thrown as something to show. */
export function errorInfo(error: unknown): ErrorInfo {
  if (error instanceof ApiError) return error.info;
  const message = error instanceof Error ? error.message : String(error);
  return { code: "ERR_UI", message };
}

const UNREACHABLE: ErrorInfo = {
  code: "ERR_UI_UNREACHABLE",
  message: "The gateway does not answer",
  why: "It has ended, or the network is down.",
  fix: "Start it again with vmsan ui or vmsan serve; VMs go on without it.",
};

/** What a call may carry. */
export interface CallOptions {
  body?: unknown;
  /** Sent as it is, instead of `body`. */
  upload?: Blob;
  signal?: AbortSignal;
}

async function failure(reply: Response): Promise<ApiError> {
  const text = await reply.text();
  try {
    const { error } = JSON.parse(text) as { error?: ErrorInfo };
    if (error !== undefined) return new ApiError(error, reply.status);
  } catch {
    // No JSON: shown as it came, below.
  }
  const info = { code: "ERR_UI_REPLY", message: `Status ${reply.status}`, why: text.slice(0, 300) };
  return new ApiError(info, reply.status);
}

/** One request. @throws ApiError, and what `signal` aborts with */
export async function ask(
  method: string,
  path: string,
  options: CallOptions = {},
): Promise<Response> {
  const { body, upload, signal } = options;
  let reply: Response;
  try {
    reply = await fetch(path, {
      method,
      headers: {
        authorization: `Bearer ${currentKey() ?? ""}`,
        ...(body === undefined ? {} : { "content-type": "application/json" }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      ...(upload === undefined ? {} : { body: upload }),
      ...(signal === undefined ? {} : { signal }),
      cache: "no-store",
      credentials: "omit",
    });
  } catch (error) {
    if (signal?.aborted === true) throw error;
    throw new ApiError(UNREACHABLE, 0);
  }
  if (!reply.ok) throw await failure(reply);
  return reply;
}

/** A call with one JSON reply; undefined where nothing is answered. */
export async function call<T>(method: string, path: string, options: CallOptions = {}): Promise<T> {
  const reply = await ask(method, path, options);
  const text = await reply.text();
  return (text === "" ? undefined : JSON.parse(text)) as T;
}

/** Lines of a reply as they come. */
export async function* lines(reply: Response): AsyncGenerator<string> {
  if (reply.body === null) return;
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let pending = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      const parts = (pending + value).split("\n");
      pending = parts.pop() ?? "";
      for (const line of parts) if (line !== "") yield line;
    }
    if (pending !== "") yield pending;
  } finally {
    // Nobody reads on: the connection is given back. It may be broken already.
    await reader.cancel().catch(() => undefined);
  }
}

/** A call whose reply is progress and then a result. */
export async function work<T>(
  method: string,
  path: string,
  options: CallOptions & { onProgress?: (event: ProgressEvent) => void } = {},
): Promise<T> {
  const reply = await ask(method, path, options);
  for await (const text of lines(reply)) {
    const line = JSON.parse(text) as ReplyLine<T>;
    if (line.event === "progress") options.onProgress?.(line.progress);
    if (line.event === "error") throw new ApiError(line.error, reply.status);
    if (line.event === "result") return line.result;
  }
  throw new ApiError(UNREACHABLE, 0);
}

/** A WebSocket to a stream of a VM; the key travels as an offered subprotocol, never in the address. */
export function openSocket(vm: string, path: string): WebSocket {
  const url = new URL(`/v1/vms/${vm}${path}`, location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return new WebSocket(url, ["vmsan-stream", `vmsan-key.${currentKey() ?? ""}`]);
}

/** A path's part. */
export const part = (text: string): string => encodeURIComponent(text);
