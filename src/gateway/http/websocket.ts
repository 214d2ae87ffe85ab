/**
 * Streams of guests for browsers: the same frames (protocol/README.md, section 4) as messages of a WebSocket,
 * cut anywhere. A browser can send no header with it, so the key is offered as a subprotocol.
 */
import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import { createWebSocketStream } from "ws";
import { agreeToWebSocket, webSocketServer } from "../../http/websocket.ts";
import { joined } from "../../util/flow/joined.ts";
import { presentedKey } from "../access/gate.ts";

/** The subprotocol that is agreed on. */
const PROTOCOL = "vmsan-stream";
/** What stands before the key in one that is only offered. */
const KEY_PREFIX = "vmsan-key.";

/** Most bytes of one message: a frame with its header, or several. */
const MAX_MESSAGE = 16 << 20;

const server = webSocketServer({
  maxPayload: MAX_MESSAGE,
  handleProtocols: (offered) => (offered.has(PROTOCOL) ? PROTOCOL : false),
});

/** Whether a request asks for a WebSocket. */
export function isSocketRequest(request: IncomingMessage): boolean {
  return request.headers.upgrade?.toLowerCase() === "websocket";
}

/** The key that a request for a WebSocket presents. */
export function socketKey(request: IncomingMessage): string | undefined {
  const offered = (request.headers["sec-websocket-protocol"] ?? "").split(",");
  const key = offered.map((one) => one.trim()).find((one) => one.startsWith(KEY_PREFIX));
  return key?.slice(KEY_PREFIX.length) ?? presentedKey(request);
}

/** Agree to a WebSocket. @returns its messages as bytes, both ways */
export async function acceptSocket(
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
): Promise<Duplex> {
  return await agreeToWebSocket(server, request, socket, head, (accepted) =>
    createWebSocketStream(accepted),
  );
}

/**
 * Copy both ways until one end has gone. A WebSocket has no half of it that could end alone: once the browser has
 * left, what it has sent is handed on, and the guest has one client less.
 */
export async function joinSocket(messages: Duplex, guest: Duplex): Promise<void> {
  messages.once("end", () => guest.once("finish", () => guest.destroy()));
  await joined(messages, guest);
}
