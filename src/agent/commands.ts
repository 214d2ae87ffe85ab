/** Looking at and ending what runs in a guest: the JSON half of streams. */
import { VmsanError } from "../model/errors.ts";
import { protocolError } from "./frames.ts";
import { parseStreamInfo, signalNumber } from "./spec.ts";
import type { StreamInfo } from "./spec.ts";
import type { GuestTransport } from "./transport.ts";

/** All streams that run or are kept, oldest first. */
export async function listStreams(
  transport: GuestTransport,
  signal?: AbortSignal,
): Promise<StreamInfo[]> {
  const options = signal === undefined ? {} : { signal };
  const reply = await transport.request<{ streams?: unknown }>("GET", "/v1/streams", options);
  if (!Array.isArray(reply.streams)) throw protocolError("A list of streams that is no list.");
  return reply.streams.map((entry) => parseStreamInfo(entry));
}

/**
 * One stream.
 * @param id 16 hex digits, as {@link StreamInfo.id}
 */
export async function streamInfo(
  transport: GuestTransport,
  id: string,
  signal?: AbortSignal,
): Promise<StreamInfo> {
  const options = signal === undefined ? {} : { signal };
  return parseStreamInfo(await transport.request("GET", `/v1/streams/${id}`, options));
}

/** Wait for a stream's end. Survives broken connections. */
export async function waitStream(
  transport: GuestTransport,
  id: string,
  signal?: AbortSignal,
): Promise<StreamInfo> {
  const options = signal === undefined ? {} : { signal };
  return parseStreamInfo(await transport.request("GET", `/v1/streams/${id}/wait`, options));
}

/**
 * Signal a stream, whoever its client is; resolves once the agent has sent it.
 * @param tree all its processes instead of the first one
 */
export async function signalStream(
  transport: GuestTransport,
  id: string,
  signal: string | number,
  tree: boolean,
): Promise<void> {
  const number = signalNumber(signal);
  if (number === undefined) {
    throw new VmsanError({
      code: "ERR_VALIDATION_FLAGS",
      message: `Invalid signal: ${JSON.stringify(signal)}`,
      why: "It takes a name (TERM, SIGTERM) or a number from 1 to 64.",
      fix: "For example: TERM.",
    });
  }
  const name = typeof signal === "number" ? String(signal) : signal.toUpperCase();
  const body = { signal: /^\d+$|^SIG/.test(name) ? name : `SIG${name}`, tree };
  await transport.request("POST", `/v1/streams/${id}/signal`, { body, idempotent: true });
}

/** Forget an ended stream and its output. */
export async function forgetStream(
  transport: GuestTransport,
  id: string,
  signal?: AbortSignal,
): Promise<void> {
  const options = signal === undefined ? {} : { signal };
  await transport.request("DELETE", `/v1/streams/${id}`, options);
}
