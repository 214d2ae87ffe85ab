/**
 * Published ports: listens on the host and connects from the VM's gateway to the guest. The
 * guest's own connections are never touched: nothing is redirected, there is only a listener.
 * Also the way back: ports of the host that a policy opens to the guest.
 */
import { createSocket, type RemoteInfo, type Socket as UdpSocket } from "node:dgram";
import { connect, createServer, isIPv6, type Server, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { VmsanError, errnoOf, messageOf } from "../model/errors.ts";
import type { PublishedPort } from "../model/policy.ts";

/** Opens connections and sockets on the guest's side. */
export interface GuestSide {
  /**
   * Called when something arrives for the guest; resolves once the guest can take it.
   * @returns since when it has been up, in milliseconds since the epoch; undefined while it boots
   */
  arrival(): Promise<number | undefined>;
  /** TCP to a port of the guest. */
  connect(port: number): Promise<Socket>;
  /** A datagram socket on the guest's side, connected to nothing. */
  udp(): Promise<UdpSocket>;
  /** Address of the guest for datagrams. */
  address: string;
}

/** Most connections (or datagram clients) of one published port. */
const maxClients = 1024;

/** How long after its guest came up a port may be one whose service is yet to do so, in milliseconds. */
const risingMs = 60_000;

/** How long a connection waits for such a service, in milliseconds, and how often it looks. */
const waitMs = 10_000;
const lookMs = 100;

/** Most connections that wait for one port's service; more are told at once that it is not there. */
const maxWaiting = 32;

/** Milliseconds after which a silent datagram client is forgotten. */
const udpIdleMs = 90_000;

/** Something that listens, until closed. */
export interface Listener {
  /** End all connections, and listen on. */
  cut(): void;
  close(): void;
}

/** Why a port could not be listened on, in the user's terms. */
function cannotListen(port: PublishedPort, error: unknown): VmsanError {
  const what = `Cannot publish port ${port.hostPort}/${port.protocol} on ${port.hostAddress}`;
  if (errnoOf(error) === "EADDRINUSE") {
    return new VmsanError(
      {
        code: "ERR_VALIDATION_PORT_CONFLICT",
        message: what,
        why: "Another program or VM listens there.",
        fix: `Choose another port of the host, for example ${port.hostPort + 1}:${port.guestPort}.`,
      },
      error,
    );
  }
  return new VmsanError(
    {
      code: "ERR_NETWORK_PUBLISH",
      message: what,
      why: messageOf(error),
      fix: "Check that the address belongs to this host and that ports below 1024 are permitted.",
    },
    error,
  );
}

/** Join two connections, half-closes included; an error on one resets the other. */
function join(one: Socket, other: Socket): void {
  for (const [from, to] of [
    [one, other],
    [other, one],
  ] as const) {
    from.on("error", () => to.resetAndDestroy());
    from.on("close", () => to.destroySoon());
    from.pipe(to);
  }
}

/**
 * Accept connections and join each with one that `open` makes.
 * @param onData called for whatever passes
 */
function relay(
  server: Server,
  open: (client: Socket) => Promise<Socket>,
  onData: () => void = () => undefined,
): Listener {
  const sockets = new Set<Socket>();
  const track = (socket: Socket): void => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
  };
  server.on("connection", (socket: Socket) => {
    if (sockets.size >= 2 * maxClients) {
      socket.resetAndDestroy();
      return;
    }
    track(socket);
    // Until it is joined an early error only means that nobody waits for the other side.
    socket.on("error", () => undefined);
    socket.pause();
    open(socket).then(
      (other) => {
        if (socket.destroyed) {
          other.destroy();
          return;
        }
        track(other);
        socket.setNoDelay(true);
        other.setNoDelay(true);
        socket.on("data", onData);
        other.on("data", onData);
        join(socket, other);
      },
      // The other side does not listen: as if this port were closed.
      () => socket.resetAndDestroy(),
    );
  });
  return {
    cut: () => {
      for (const socket of sockets) socket.resetAndDestroy();
    },
    close: () => {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}

/**
 * Connects to a guest's port. Until somebody has been let in a first time, clients that come early wait: this side listens
 * before the guest's program does, and a connection that is accepted and then broken is taken by many for one that was used.
 */
function connector(port: number, guest: GuestSide): (client: Socket) => Promise<Socket> {
  let reached = false;
  let waiting = 0;
  const attempt = async (): Promise<Socket> => {
    const socket = await guest.connect(port);
    reached = true;
    return socket;
  };
  return async (client) => {
    const upSince = await guest.arrival();
    const now = Date.now();
    const last = Math.min((upSince ?? now) + risingMs, now + waitMs);
    // Before the attempt: one that has failed while another's came through was too early, no more.
    let known = reached;
    try {
      return await attempt();
    } catch (error) {
      if (known || waiting >= maxWaiting) throw error;
    }
    waiting += 1;
    try {
      for (;;) {
        await sleep(lookMs, undefined, { ref: false });
        known = reached;
        try {
          return await attempt();
        } catch (error) {
          if (known || client.destroyed || Date.now() > last) throw error;
        }
      }
    } finally {
      waiting -= 1;
    }
  };
}

/** Listen for TCP on the host. */
async function publishTcp(port: PublishedPort, guest: GuestSide): Promise<Listener> {
  const server = createServer({ allowHalfOpen: true });
  server.unref();
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(
      { host: port.hostAddress, port: port.hostPort, ipv6Only: isIPv6(port.hostAddress) },
      resolve,
    );
  });
  const enter = connector(port.guestPort, guest);
  return relay(
    server,
    enter,
    // What comes on a connection of a VM that has fallen asleep meanwhile waits in its socket.
    () => void guest.arrival().catch(() => undefined),
  );
}

/** One datagram client of a published port. */
interface Client {
  socket: UdpSocket | undefined;
  queue: Buffer[];
  timer: NodeJS.Timeout;
}

/** Listen for UDP on the host; each client gets a socket of its own on the guest's side. */
async function publishUdp(port: PublishedPort, guest: GuestSide): Promise<Listener> {
  const server = createSocket(
    isIPv6(port.hostAddress) ? { type: "udp6", ipv6Only: true } : { type: "udp4" },
  );
  server.unref();
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.bind({ address: port.hostAddress, port: port.hostPort, exclusive: true }, resolve);
  });
  // Errors after binding are ICMP messages about single clients.
  server.on("error", () => undefined);
  const clients = new Map<string, Client>();
  const forget = (key: string): void => {
    const client = clients.get(key);
    clients.delete(key);
    clearTimeout(client?.timer);
    client?.socket?.close();
  };
  const arrive = (peer: RemoteInfo): Client | undefined => {
    const key = `${peer.address}#${peer.port}`;
    const known = clients.get(key);
    if (known !== undefined) {
      known.timer.refresh();
      return known;
    }
    if (clients.size >= maxClients) return undefined;
    const client: Client = {
      socket: undefined,
      queue: [],
      timer: setTimeout(() => forget(key), udpIdleMs).unref(),
    };
    clients.set(key, client);
    const open = async (): Promise<UdpSocket> => {
      await guest.arrival();
      return await guest.udp();
    };
    open().then(
      (socket) => {
        if (clients.get(key) !== client) {
          socket.close();
          return;
        }
        client.socket = socket;
        socket.unref();
        socket.on("error", () => undefined); // the guest's port is closed: datagrams are lost
        socket.on("message", (message, from) => {
          if (from.address !== guest.address || from.port !== port.guestPort) return;
          client.timer.refresh();
          server.send(message, peer.port, peer.address, () => undefined);
        });
        for (const message of client.queue) socket.send(message, port.guestPort, guest.address);
        client.queue.length = 0;
      },
      () => forget(key),
    );
    return client;
  };
  server.on("message", (message, peer) => {
    const client = arrive(peer);
    if (client === undefined) return;
    if (client.socket !== undefined) {
      void guest.arrival().catch(() => undefined);
      client.socket.send(message, port.guestPort, guest.address, () => undefined);
    } else if (client.queue.length < 16) client.queue.push(message);
  });
  return {
    // Datagrams belong to nothing that could end.
    cut: () => undefined,
    close: () => {
      server.close();
      for (const key of clients.keys()) forget(key);
    },
  };
}

/**
 * Listen on the host for all published ports; on failure none stays open.
 * Throws ERR_VALIDATION_PORT_CONFLICT when one is taken, else ERR_NETWORK_PUBLISH.
 */
export async function publishAll(
  ports: readonly PublishedPort[],
  guest: GuestSide,
): Promise<Listener> {
  const open: Listener[] = [];
  const close = (): void => {
    for (const listener of open) listener.close();
  };
  for (const port of ports) {
    try {
      open.push(
        await (port.protocol === "tcp" ? publishTcp(port, guest) : publishUdp(port, guest)),
      );
    } catch (error) {
      close();
      throw cannotListen(port, error);
    }
  }
  return {
    cut: () => {
      for (const listener of open) listener.cut();
    },
    close,
  };
}

/** Join connections to an opened host port (a listener at the VM's gateway) with the host's own loopback. */
export function openHostPort(server: Server, port: number, onOpen: () => void): Listener {
  server.unref();
  return relay(server, async () => {
    onOpen();
    for (const [index, host] of ["127.0.0.1", "::1"].entries()) {
      try {
        return await new Promise<Socket>((resolve, reject) => {
          const socket = connect({ host, port, allowHalfOpen: true });
          socket.once("error", reject);
          socket.once("connect", () => {
            socket.off("error", reject);
            resolve(socket);
          });
        });
      } catch (error) {
        // The first address refused: services may listen on IPv6 only.
        if (index === 1) throw error;
      }
    }
    throw new Error("unreachable");
  });
}
