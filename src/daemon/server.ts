/**
 * daemon/: the HTTP API on a unix socket. Takes requests, hands them to the composer,
 * answers with JSON, lines of progress or raw streams. Holds what must outlive a command.
 *
 * server.ts: the socket, the routes, and connections that switch to raw bytes.
 */
import { chmodSync, rmSync } from "node:fs";
import type { IncomingMessage, Server } from "node:http";
import type { Duplex } from "node:stream";
import { getRequestListener } from "@hono/node-server";
import { Hono } from "hono";
import { createServer } from "node:http";
import { PATIENCE_HEADER, TIMING_HEADER, VERSION_HEADER, patienceOf } from "../model/api.ts";
import { isAsleep } from "../agent/transport.ts";
import { VmsanError, asVmsanError, messageOf } from "../model/errors.ts";
import type { Sandboxes } from "../sandbox/sandboxes.ts";
import type { Sleep } from "../sandbox/snapshots/sleep.ts";
import { socketPath } from "../util/socket-path.ts";
import { packageVersion } from "../util/package.ts";
import { errorReply, statusOf } from "../http/reply.ts";
import { notingPhases, timingOfCall } from "../util/flow/phases.ts";
import { joined } from "../util/flow/joined.ts";
import type { Log } from "../util/log.ts";
import { watchCommand } from "./command-watch.ts";
import { vmRoutes } from "./vm-routes.ts";

const STREAM_PATH = /^\/v1\/vms\/([a-z0-9][a-z0-9._-]{0,62})(\/v1\/streams(?:\/[0-9a-f]{16})?)$/;

/** What the server serves. */
export interface Service {
  sandboxes: Sandboxes;
  /** The way to agents, also of VMs that sleep. */
  sleep: Pick<Sleep, "channel">;
  /** Adds the routes of other parts (images, kernels …). */
  extend?: (app: Hono) => void;
  log: Log;
  root: string;
  /** Called by `POST /v1/shutdown`, after the reply. */
  shutdown: () => void;
}

/** A listening server. */
export interface Listening {
  /** Stop accepting, end open connections, remove the socket. */
  close(): Promise<void>;
  /** Milliseconds since the last request ended, 0 while one is open. */
  idleMs(): number;
}

/** Throws ERR_DAEMON_VERSION for a client that says that it is of another version than this. */
function checkVersion(said: string | undefined): void {
  if (said === undefined || said === packageVersion()) return;
  throw new VmsanError({
    code: "ERR_DAEMON_VERSION",
    message: `This daemon is of version ${packageVersion()}, the client of ${said.slice(0, 64)}`,
    why: "Nothing was done: what the two mean by the same words may differ.",
    fix: "End this daemon (POST /v1/shutdown, `vmsan daemon stop`); its VMs go on, and the next command starts another.",
  });
}

/** The routes; separate from the socket so that tests can call them directly. */
function createApp(service: Service): Hono {
  const app = new Hono();
  app.onError((error, c) => {
    service.log.error(`${c.req.method} ${c.req.path}`, error);
    return errorReply(c, error);
  });
  app.notFound((c) =>
    c.json(
      {
        error: {
          code: "ERR_DAEMON_ROUTE_NOT_FOUND",
          message: `No route ${c.req.method} ${c.req.path}`,
          fix: "See docs/api.md for the routes.",
        },
      },
      404,
    ),
  );
  // These two are for clients of every version: with them they replace the daemon.
  app.get("/v1/version", (c) =>
    c.json({ version: packageVersion(), pid: process.pid, root: service.root, protocol: 1 }),
  );
  app.post("/v1/shutdown", (c) => {
    setImmediate(service.shutdown);
    return c.body(null, 204);
  });
  app.use(async (c, next) => {
    checkVersion(c.req.header(VERSION_HEADER));
    if (c.req.header(TIMING_HEADER) === undefined) return await next();
    await notingPhases(async () => {
      await next();
      // Of lines the work has hardly begun: they tell it at their end.
      c.header(TIMING_HEADER, JSON.stringify(timingOfCall()));
    });
  });
  vmRoutes(app, service.sandboxes, service.sleep);
  service.extend?.(app);
  return app;
}

/** Serve on a unix socket that only this user can open. */
export async function serve(service: Service, socket: string): Promise<Listening> {
  const app = createApp(service);
  let open = 0;
  let lastEnd = Date.now();
  const enter = (end: NodeJS.EventEmitter): void => {
    open += 1;
    end.once("close", () => {
      open -= 1;
      lastEnd = Date.now();
    });
  };
  const listener = getRequestListener(app.fetch);
  const server: Server = createServer((request, response) => {
    enter(response);
    void listener(request, response);
  });
  // Streams may be silent for as long as a command runs.
  server.requestTimeout = 0;
  server.timeout = 0;
  const raw = new Set<Duplex>();
  server.on("upgrade", (request: IncomingMessage, client: Duplex, head: Buffer) => {
    enter(client);
    raw.add(client);
    client.once("close", () => raw.delete(client));
    void handStreamThrough(service, request, client, head);
  });
  // The lock says that no other daemon serves here: a socket that exists is a dead one's.
  rmSync(socket, { force: true });
  const address = socketPath(socket);
  const before = process.umask(0o177);
  try {
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(address.path, resolve);
    });
  } finally {
    process.umask(before);
    address[Symbol.dispose]();
  }
  chmodSync(socket, 0o600);
  return {
    close: async () => {
      // First: whoever follows what happens tells by it an end from a death (client/events.ts).
      rmSync(socket, { force: true });
      for (const client of raw) client.destroy();
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeAllConnections();
      await closed;
    },
    idleMs: () => (open > 0 ? 0 : Date.now() - lastEnd),
  };
}

/** Why a stream is not opened after all. */
const CLIENT_GONE = new VmsanError({ code: "ERR_CLIENT_GONE", message: "The client went away" });

/** How long a stream of a sleeping VM is kept waiting before its client is told why. */
const ASLEEP_MS = 5000;

/**
 * The channel to a VM's agent once the VM is awake.
 * @throws ERR_AGENT_ASLEEP after a while: a client that hears nothing would take the VM for lost
 */
async function awakeChannel(
  service: Service,
  id: string,
  signal: AbortSignal,
  patienceMs = Infinity,
): ReturnType<Service["sleep"]["channel"]> {
  // A client may ask twice within its patience (client/transport.ts), and is to hear of it in time.
  const enough = AbortSignal.timeout(Math.min(ASLEEP_MS, Math.trunc(patienceMs / 4)));
  try {
    return await service.sleep.channel(id, false, AbortSignal.any([signal, enough]));
  } catch (error) {
    if (signal.aborted || error !== enough.reason) throw error;
    throw new VmsanError({
      code: "ERR_AGENT_ASLEEP",
      message: `${id} sleeps`,
      why: "What runs in it goes on once it is woken.",
      fix: `Wake it: vmsan resume ${id}`,
    });
  }
}

/** Pipe an upgraded connection to a stream of the VM's agent, both ways, byte for byte. */
async function handStreamThrough(
  service: Service,
  request: IncomingMessage,
  client: Duplex,
  head: Buffer,
): Promise<void> {
  // A client that goes away ends the pipeline below; this keeps an early error from being fatal.
  client.on("error", () => client.destroy());
  try {
    const match = STREAM_PATH.exec(request.url ?? "");
    if (match === null || request.headers.upgrade !== "vmsan-stream") {
      client.end("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
      return;
    }
    checkVersion(request.headers[VERSION_HEADER]?.toString());
    const gone = new AbortController();
    // One reason for all: making an error with its stack for each command takes longer than the rest.
    client.once("close", () => gone.abort(CLIENT_GONE));
    const [, id = "", path = ""] = match;
    // A new stream wakes a sleeping VM; one that is there already sleeps with it.
    const wakes = path === "/v1/streams";
    const channel = await (wakes
      ? service.sleep.channel(id, true, gone.signal)
      : awakeChannel(service, id, gone.signal, patienceOf(request.headers[PATIENCE_HEADER])));
    const guest = await channel.open(path, gone.signal);
    client.write(
      "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: vmsan-stream\r\n\r\n",
    );
    if (head.length > 0) client.unshift(head);
    if (wakes) watchCommand(service.sandboxes, id, client, guest);
    await joined(client, guest);
  } catch (error) {
    if (client.destroyed) return;
    const known = asVmsanError(error, "Cannot open a stream to the guest");
    const body = JSON.stringify({ error: known.toJSON() });
    if (!isAsleep(error)) service.log.info(`stream refused: ${messageOf(error)}`);
    client.end(
      `HTTP/1.1 ${statusOf(known.code)} Error\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n${body}`,
    );
  }
}
