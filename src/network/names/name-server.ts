/** Serves a guest's name server: the sockets around resolver.ts, with bounds on everything. */
import type { Socket as UdpSocket } from "node:dgram";
import type { Server, Socket } from "node:net";
import { resolveQuery, type ResolverContext } from "./resolver.ts";

/** Most questions of one guest being looked up at a time. */
const maxPending = 128;

/** Most TCP connections of one guest. */
const maxConnections = 32;

/** Milliseconds until an idle TCP connection is closed. */
const idleMs = 10_000;

/** Answers on the given sockets until they are closed. */
export class NameServer {
  private readonly context: ResolverContext;
  private readonly sockets: (UdpSocket | Server)[] = [];
  private readonly connections = new Set<Socket>();
  private pending = 0;

  /** @param context what queries are judged with */
  constructor(context: ResolverContext) {
    this.context = context;
  }

  /** Answer datagrams. */
  serveUdp(socket: UdpSocket): void {
    this.sockets.push(socket);
    socket.unref();
    // Errors are ICMP messages about clients that went away; each query stands alone.
    socket.on("error", () => undefined);
    socket.on("message", (message, peer) => {
      void this.answer(message, "udp").then((bytes) => {
        if (bytes === undefined) return;
        // A send fails when the socket was closed meanwhile or the guest is gone: as if lost.
        try {
          socket.send(bytes, peer.port, peer.address, () => undefined);
        } catch {
          // ERR_SOCKET_DGRAM_NOT_RUNNING: closed while the question was out.
        }
      });
    });
  }

  /** Answer connections (RFC 7766). */
  serveTcp(server: Server): void {
    this.sockets.push(server);
    server.unref();
    server.on("connection", (socket) => {
      if (this.connections.size >= maxConnections) {
        socket.destroy();
        return;
      }
      this.connections.add(socket);
      socket.unref();
      socket.on("close", () => this.connections.delete(socket));
      // A guest that resets its connection has lost interest in the answer.
      socket.on("error", () => undefined);
      socket.setTimeout(idleMs, () => socket.destroy());
      void this.converse(socket);
    });
  }

  /** One connection: messages with their length in front, answered in order. */
  private async converse(socket: Socket): Promise<void> {
    let held = Buffer.alloc(0);
    try {
      for await (const chunk of socket) {
        held = Buffer.concat([held, chunk as Buffer]);
        while (held.length >= 2 && held.length >= 2 + held.readUInt16BE(0)) {
          const length = held.readUInt16BE(0);
          const bytes = await this.answer(held.subarray(2, 2 + length), "tcp");
          held = held.subarray(2 + length);
          if (bytes === undefined) {
            socket.destroy();
            return;
          }
          socket.write(
            Buffer.concat([Buffer.from([bytes.length >> 8, bytes.length & 255]), bytes]),
          );
        }
      }
    } catch {
      // ECONNRESET and the like: the connection is over, which is all there is to know.
      socket.destroy();
    }
  }

  /** One answer, if there is room for the question. */
  private async answer(message: Buffer, transport: "udp" | "tcp"): Promise<Buffer | undefined> {
    if (this.pending >= maxPending) return undefined;
    this.pending += 1;
    try {
      return await resolveQuery(this.context, message, transport);
    } catch {
      // The library cannot encode what it decoded (an odd record of the upstream's): no answer.
      return undefined;
    } finally {
      this.pending -= 1;
    }
  }

  /** Close all sockets. */
  close(): void {
    for (const socket of this.sockets) socket.close();
    for (const connection of this.connections) connection.destroy();
    this.sockets.length = 0;
  }
}
