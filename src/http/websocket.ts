/** WebSockets on connections that ask for them, by the library `ws`. */
import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import { WebSocketServer } from "ws";
import type { ServerOptions, WebSocket } from "ws";

/** What agrees to WebSockets on connections of a server of one's own; nothing is compressed or remembered. */
export function webSocketServer(
  options: Pick<ServerOptions, "maxPayload" | "handleProtocols">,
): WebSocketServer {
  return new WebSocketServer({
    noServer: true,
    perMessageDeflate: false,
    clientTracking: false,
    ...options,
  });
}

/**
 * Agree to a WebSocket.
 * @param take what to make of it: called at once, since a message that comes before somebody listens is lost
 * @throws when it is none after all, which has been answered by then
 */
export async function agreeToWebSocket<T>(
  server: WebSocketServer,
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
  take: (accepted: WebSocket) => T,
): Promise<T> {
  return await new Promise((resolve, reject) => {
    socket.once("close", () => reject(new Error("no WebSocket")));
    server.handleUpgrade(request, socket, head, (accepted) => resolve(take(accepted)));
  });
}
