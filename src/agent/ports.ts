/** Ports through the channel, in both directions, whatever the network policy is. */
import { rm } from "node:fs/promises";
import { createConnection, createServer } from "node:net";
import type { AddressInfo, Server, Socket } from "node:net";
import { VmsanError, errnoOf, messageOf } from "../model/errors.ts";
import { joined } from "../util/flow/joined.ts";
import { bracketed } from "../util/hosts/bracketed.ts";
import { listenUnix, socketPath } from "../util/socket-path.ts";
import { GuestConnection } from "./connection.ts";
import { checkExit } from "./file-stream.ts";
import { protocolError } from "./frames.ts";
import { isStreamId } from "./spec.ts";
import { attachStream, startStream } from "./streams.ts";
import type { GuestStream } from "./streams.ts";
import type { StreamOpener } from "./transport.ts";

/** One end of a connection: a TCP port or a unix socket. */
export type Endpoint =
  | { network: "tcp"; host: string; port: number }
  | { network: "unix"; path: string };

/** A forwarding that runs. */
export interface Forwarding {
  /** What is really listened on: the port that was chosen for port 0. */
  readonly address: Endpoint;
  /** Connections open now. */
  readonly connections: number;
  /** Resolves when it has ended by itself (guest to host: the listener in the guest is gone). */
  readonly ended: Promise<void>;
  /** Stop listening and end every connection. */
  close(): Promise<void>;
}

/** What a forwarding may be told. */
export interface ForwardOptions {
  /** A connection that could not be made on the far side. */
  onError?: (error: unknown) => void;
  /** Guest to host: what the streams in the guest are known by. */
  label?: string;
  /** Guest to host: most connections at once; default as many as the guest makes. More are ended. */
  most?: number;
}

/** The agent's way to write an endpoint: host and port, or a path. */
export function addressOf(endpoint: Endpoint): string {
  if (endpoint.network === "unix") return endpoint.path;
  const { host, port } = endpoint;
  return `${bracketed(host)}:${port}`;
}

/** Read `host:port` or `[v6]:port` as the agent writes it. */
function parseTcp(text: string): Endpoint {
  const match = /^(?:\[([0-9a-fA-F:.%]+)\]|([^:[\]]*)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (match === null || port > 65_535)
    throw protocolError(`An address ${JSON.stringify(text.slice(0, 80))}.`);
  return { network: "tcp", host: match[1] ?? match[2] ?? "", port };
}

/** Join a socket of this host and a connection in the guest; each direction ends on its own. */
function join(socket: Socket, stream: GuestStream, onError: (error: unknown) => void): void {
  const connection = new GuestConnection(stream);
  connection.on("error", onError);
  void joined(socket, connection);
}

/** Listening sockets and connections of one forwarding. */
class Connections {
  readonly open = new Set<Socket>();

  add(socket: Socket): void {
    this.open.add(socket);
    socket.setNoDelay(true);
    socket.on("close", () => this.open.delete(socket));
  }

  closeAll(): void {
    for (const socket of this.open) socket.destroy();
  }
}

/** The error of a listener on this host. */
function cannotListen(endpoint: Endpoint, error: unknown): VmsanError {
  const inUse = errnoOf(error) === "EADDRINUSE";
  return new VmsanError(
    {
      code: inUse ? "ERR_VALIDATION_PORT_CONFLICT" : "ERR_AGENT_FORWARD",
      message: `Cannot listen on ${addressOf(endpoint)}`,
      why: inUse ? "Something listens there already." : messageOf(error),
      fix: "Choose another port or path.",
    },
    error,
  );
}

/** Listen on a TCP port or unix socket of this host. */
async function listen(server: Server, endpoint: Endpoint): Promise<Endpoint> {
  try {
    if (endpoint.network === "unix") {
      await listenUnix(server, endpoint.path);
      return endpoint;
    }
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen({ host: endpoint.host, port: endpoint.port }, () => {
        server.removeListener("error", reject);
        resolve();
      });
    });
  } catch (error) {
    throw cannotListen(endpoint, error);
  }
  const { port } = server.address() as AddressInfo;
  return { ...endpoint, port };
}

/**
 * Connections to `local` on this host reach `remote` in the guest.
 * @throws ERR_VALIDATION_PORT_CONFLICT when something listens on `local` already
 */
export async function forwardToGuest(
  transport: StreamOpener,
  local: Endpoint,
  remote: Endpoint,
  options: ForwardOptions = {},
): Promise<Forwarding> {
  const connections = new Connections();
  const report = options.onError ?? ((): void => undefined);
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    connections.add(socket);
    const { network } = remote;
    const spec = { kind: "dial" as const, network, address: addressOf(remote), stdin: true };
    join(socket, startStream(transport, spec), report);
  });
  const address = await listen(server, local);
  const ended = new Promise<void>((resolve) => {
    server.once("close", resolve);
  });
  return {
    address,
    get connections() {
      return connections.open.size;
    },
    ended,
    close: async () => {
      server.close();
      connections.closeAll();
      await ended;
      // Node removes a socket's path only when it knew it whole.
      if (address.network === "unix") await rm(address.path, { force: true });
    },
  };
}

/** Connect to something on this host. */
async function dialHost(endpoint: Endpoint): Promise<Socket> {
  const unix = endpoint.network === "unix" ? socketPath(endpoint.path) : undefined;
  try {
    return await new Promise<Socket>((resolve, reject) => {
      const socket = createConnection(
        endpoint.network === "unix"
          ? { path: unix?.path ?? "", allowHalfOpen: true }
          : { host: endpoint.host, port: endpoint.port, allowHalfOpen: true },
      );
      socket.once("error", reject);
      socket.once("connect", () => {
        socket.removeListener("error", reject);
        resolve(socket);
      });
    });
  } finally {
    unix?.[Symbol.dispose]();
  }
}

/**
 * Connections to `remote` in the guest reach `local` on this host.
 * @throws the agent's error when it cannot listen there
 */
export async function forwardToHost(
  transport: StreamOpener,
  remote: Endpoint,
  local: Endpoint,
  options: ForwardOptions = {},
): Promise<Forwarding> {
  const connections = new Connections();
  const report = options.onError ?? ((): void => undefined);
  const { label, most = Infinity } = options;
  let dialling = 0;
  const accept = async (id: string): Promise<void> => {
    const stream = attachStream(transport, id);
    if (connections.open.size + dialling >= most) {
      stream.signal("SIGKILL", true);
      return;
    }
    dialling += 1;
    try {
      const socket = await dialHost(local);
      connections.add(socket);
      join(socket, stream, report);
    } catch (error) {
      stream.signal("SIGKILL", true);
      report(error);
    } finally {
      dialling -= 1;
    }
  };
  const { network } = remote;
  const spec = {
    kind: "listen" as const,
    network,
    address: addressOf(remote),
    ...(label === undefined ? {} : { label }),
  };
  let pending = "";
  let bound: (address: Endpoint) => void = () => undefined;
  const address = new Promise<Endpoint>((resolve) => {
    bound = resolve;
  });
  const listener = startStream(transport, spec, {
    onStdout: (bytes) => {
      pending += bytes.toString("utf8");
      const lines = pending.split("\n");
      pending = lines.pop() ?? "";
      if (pending.length > 65_536) throw protocolError("A line of more than 64 KiB.");
      for (const line of lines) {
        const value = JSON.parse(line) as Record<string, unknown>;
        const id = value["id"];
        if (typeof id === "string" && isStreamId(id)) void accept(id);
        else if (typeof value["address"] === "string") {
          bound(network === "tcp" ? parseTcp(value["address"]) : remote);
        }
      }
    },
  });
  const ended = listener.exit.then(
    () => undefined,
    () => undefined,
  );
  const failed = checkExit(listener, `Cannot listen on ${addressOf(remote)} in the guest`).then(
    () => {
      throw protocolError("The listener in the guest ended before it began.");
    },
  );
  failed.catch(() => undefined);
  const real = await Promise.race([address, failed]);
  return {
    address: real,
    get connections() {
      return connections.open.size;
    },
    ended,
    close: async () => {
      listener.signal("SIGTERM", true);
      await ended;
      connections.closeAll();
    },
  };
}
