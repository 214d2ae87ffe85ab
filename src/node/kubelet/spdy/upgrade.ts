/** Connections that agree on SPDY/3.1: by HTTP's own upgrade, or within a WebSocket. */
import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import { createWebSocketStream } from "ws";
import { agreeToWebSocket, webSocketServer } from "../../../http/websocket.ts";

/** What stands before a protocol's name where SPDY travels in a WebSocket. */
const TUNNEL = "SPDY/3.1+";

/** Most bytes of one message of such a WebSocket. */
const MAX_MESSAGE = 8 << 20;

/** The protocols on SPDY/3.1 that a client offers, best first; none when it asks for something else. */
export function offeredOnSpdy(request: IncomingMessage): string[] {
  if (request.headers.upgrade?.toLowerCase() !== "spdy/3.1") return [];
  const offered = request.headers["x-stream-protocol-version"] ?? "";
  return [offered]
    .flat()
    .join(",")
    .split(",")
    .map((one) => one.trim());
}

/** Agree to SPDY/3.1 with one of the protocols that were offered. */
export function acceptSpdy(socket: Duplex, head: Buffer, protocol: string): Duplex {
  socket.write(
    `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: ${protocol}\r\n\r\n`,
  );
  if (head.length > 0) socket.unshift(head);
  return socket;
}

/** Whether a request offers a protocol on SPDY/3.1 in a WebSocket. */
export function offersTunnel(request: IncomingMessage, protocol: string): boolean {
  const offered = (request.headers["sec-websocket-protocol"] ?? "").split(",");
  return offered.some((one) => one.trim() === `${TUNNEL}${protocol}`);
}

/**
 * Agree to it. @throws when it is no WebSocket, which has been answered then
 *
 * The name of the protocol has a slash, which names of subprotocols may not have (RFC 6455, 4.1), and `ws` refuses it.
 * So it is agreed upon beside that library.
 */
export async function acceptTunnel(
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
  protocol: string,
): Promise<Duplex> {
  const server = webSocketServer({ maxPayload: MAX_MESSAGE });
  delete request.headers["sec-websocket-protocol"];
  server.on("headers", (lines) => lines.push(`Sec-WebSocket-Protocol: ${TUNNEL}${protocol}`));
  return await agreeToWebSocket(server, request, socket, head, (accepted) =>
    createWebSocketStream(accepted),
  );
}
