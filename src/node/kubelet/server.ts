/**
 * kubelet/: what the API server and `kubectl` ask this node for: logs, commands, terminals, ports and figures of its
 * pods. Takes the pods that run here, gives an HTTPS server.
 *
 * server.ts: connections, who may come in, and what answers which request.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import type { Duplex } from "node:stream";
import { setTimeout } from "node:timers/promises";
import type { Vmsan } from "../../client/vmsan.ts";
import { VmsanError, asVmsanError, errnoOf, messageOf } from "../../model/errors.ts";
import { VM_API_COMMAND } from "../../kube/pod-words.ts";
import { dropUnread } from "../../util/flow/unread.ts";
import { httpsModule } from "../../util/process/http-modules.ts";
import type { Log } from "../../util/log.ts";
import type { ApiServer } from "../../kube/api-server.ts";
import type { RunningPod, RunningPods } from "../pods/running.ts";
import { Blobs } from "./blobs.ts";
import { Callers } from "./callers.ts";
import { resourceMetrics, summary } from "./figures/summary.ts";
import { Uses } from "./figures/use.ts";
import { sendLogs } from "./logs.ts";
import { PORT_FORWARD, forwardPorts } from "./port-forward.ts";
import { attachClient, runCommand } from "./remote/run.ts";
import type { RemoteSession, SessionWish } from "./remote/session.ts";
import { serveVmApi } from "./remote/vm-api.ts";
import { SPDY_VERSIONS, spdySession } from "./remote/spdy-session.ts";
import { acceptWebSocket, speaksChannels } from "./remote/web-socket.ts";
import { badRequest, logOptionsOf, readRequest, wishOf } from "./requests.ts";
import type { KubeletRequest, Target } from "./requests.ts";
import { wordsOf } from "./words.ts";
import { acceptSpdy, acceptTunnel, offeredOnSpdy, offersTunnel } from "./spdy/upgrade.ts";

/** A certificate with its key, PEM. */
export interface ServingCertificate {
  cert: string;
  key: string;
}

/** What a server is made of. */
export interface KubeletParts {
  /** The node's name in the cluster. */
  node: string;
  pods: RunningPods;
  vmsan: Vmsan;
  api: ApiServer;
  /** Where it listens; port 0: the kernel chooses. */
  address: { host: string; port: number };
  certificate: ServingCertificate;
  /**
   * Certificates of the cluster's authority, PEM: callers with one of its certificates are known by it. Empty: tokens
   * alone count.
   */
  clientCa: string | Buffer;
  /** Other nodes may have this host's blobs. */
  peers?: boolean;
  log: Log;
}

/** A listening server. */
export interface KubeletServer {
  readonly port: number;
  /** Show another certificate from now on. */
  setCertificate(certificate: ServingCertificate): void;
  /** Stop accepting and end what is open. */
  close(): Promise<void>;
}

/** Most connections at once. */
const MAX_CONNECTIONS = 2_000;

/** How long a client may take for its handshake and its headers, in milliseconds. */
const HEADERS_MS = 20_000;

/** How long a connection may be silent before the kernel asks whether its peer is there, in milliseconds. */
const KEEP_ALIVE_MS = 30_000;

/** How long a caller waits until a node that has just been started knows its pods again, in milliseconds. */
const ADOPTION_MS = 20_000;

const STATUS: Record<string, number> = {
  ERR_NODE_UNAUTHORIZED: 401,
  ERR_NODE_FORBIDDEN: 403,
  ERR_NODE_REQUEST: 400,
  ERR_NODE_ROUTE_NOT_FOUND: 404,
  ERR_NODE_POD_NOT_FOUND: 404,
  ERR_NODE_BLOB_NOT_FOUND: 404,
  ERR_NODE_BUSY: 503,
  ERR_NODE_LOG: 400,
  ERR_NODE_API: 503,
};

/** A refusal: the API server hands its words to its own client. */
function refusal(error: unknown): { status: number; text: string } {
  const { code } = asVmsanError(error, "");
  return { status: STATUS[code] ?? 500, text: `${wordsOf(error, "The request failed")}\n` };
}

/** What a request is, once its caller may do it. */
interface Admitted {
  request: KubeletRequest;
  query: URLSearchParams;
}

/** Takes over a connection that has asked to switch protocols, with what came behind the request. */
type Opener<T> = (socket: Duplex, head: Buffer) => Promise<T>;
type Takeover = Opener<void>;

/** Listen. @throws ERR_NODE_LISTEN */
export async function serveKubelet(parts: KubeletParts): Promise<KubeletServer> {
  const { node, pods, vmsan, api, address, clientCa, log } = parts;
  const startedAt = new Date();
  const callers = new Callers(api, node);
  const uses = new Uses(vmsan, pods);
  const blobs = parts.peers === true ? new Blobs(vmsan.daemon.layout.images) : undefined;
  const open = new Set<Duplex>();

  const admit = async (incoming: IncomingMessage): Promise<Admitted> => {
    const url = URL.parse(incoming.url ?? "/", "https://node");
    const read = url === null ? undefined : readRequest(incoming.method ?? "", url.pathname);
    if (url === null || read === undefined) {
      // Whoever is not known learns nothing, not even which paths there are.
      await callers.admit(incoming, { verb: "get", subresources: ["proxy"] });
      throw noRoute(incoming, url?.pathname ?? incoming.url ?? "");
    }
    await callers.admit(incoming, read.action);
    return { request: read.request, query: url.searchParams };
  };

  // A node that has just been started does not know yet what runs here.
  let adopting = true;
  void pods.adopted.then(() => (adopting = false));

  const find = async (target: Target): Promise<RunningPod> => {
    if (adopting) {
      await Promise.race([pods.adopted, setTimeout(ADOPTION_MS, undefined, { ref: false })]);
    }
    const pod = pods.find(target.namespace, target.pod, target.container);
    if (pod !== undefined && (target.uid === undefined || target.uid === pod.uid)) return pod;
    throw new VmsanError({
      code: "ERR_NODE_POD_NOT_FOUND",
      message: `There is no container ${[target.namespace, target.pod, target.container ?? ""].join("/").slice(0, 400)} on ${node}`,
      why: "It was never here, or is gone.",
      fix: "Look where the pod is: kubectl get pod -o wide.",
    });
  };

  const running = async (target: Target): Promise<RunningPod> => {
    const pod = await find(target);
    if (pod.running) return pod;
    throw badRequest(
      `The container ${pod.container} of ${pod.namespace}/${pod.name} does not run.`,
    );
  };

  const answer = async (incoming: IncomingMessage, response: ServerResponse): Promise<void> => {
    const { request, query } = await admit(incoming);
    switch (request.kind) {
      case "healthz":
        send(response, "text/plain", "ok");
        break;
      case "pods": {
        const items = pods.list().map(({ pod }) => pod);
        sendJson(response, { kind: "PodList", apiVersion: "v1", metadata: {}, items });
        break;
      }
      case "summary":
        sendJson(response, summary(node, startedAt, await uses.now()));
        break;
      case "resource":
        send(response, "text/plain; version=0.0.4", resourceMetrics(await uses.now()));
        break;
      case "blob":
        if (blobs === undefined) throw noRoute(incoming, request.digest);
        await blobs.send(incoming, response, request.digest);
        break;
      case "containerLogs":
        await sendLogs(response, await find(request.target), logOptionsOf(query));
        break;
      case "exec":
      case "attach":
      case "portForward":
        throw badRequest("It does not ask to switch to WebSocket or SPDY/3.1.");
    }
  };

  /** What is to be done with a connection that asks to switch protocols; all refusals come before that. */
  const plan = async (incoming: IncomingMessage): Promise<Takeover> => {
    const { request, query } = await admit(incoming);
    switch (request.kind) {
      case "exec": {
        const wish = wishOf(query);
        const argv = query.getAll("command");
        if (argv.length === 0) throw badRequest("It names no command.");
        const pod = await running(request.target);
        const open = sessionOpener(incoming, wish);
        if (argv[0] === VM_API_COMMAND) {
          return async (...by) => await serveVmApi(await open(...by), pod, vmsan.daemon);
        }
        return async (...by) => await runCommand(await open(...by), pod, argv, wish);
      }
      case "attach": {
        const wish = wishOf(query);
        const pod = await running(request.target);
        const open = sessionOpener(incoming, wish);
        return async (...by) => await attachClient(await open(...by), pod, wish);
      }
      case "portForward": {
        const pod = await running(request.target);
        const open = forwardOpener(incoming);
        return async (...by) => await forwardPorts(await open(...by), pod);
      }
      case "blob":
      case "containerLogs":
      case "healthz":
      case "pods":
      case "resource":
      case "summary":
        throw badRequest("Nothing here switches protocols.");
    }
  };

  const upgrade = async (
    incoming: IncomingMessage,
    socket: Duplex,
    head: Buffer,
  ): Promise<void> => {
    let takeover: Takeover;
    try {
      takeover = await plan(incoming);
    } catch (error) {
      const { status, text } = refusal(error);
      if (status === 500) log.error(`${incoming.method} failed`, error);
      socket.end(
        `HTTP/1.1 ${status} Refused\r\nContent-Type: text/plain\r\nContent-Length: ${Buffer.byteLength(text)}\r\nConnection: close\r\n\r\n${text}`,
        // A client that is not known could leave its end open for ever.
        () => socket.destroy(),
      );
      return;
    }
    try {
      await takeover(socket, head);
    } catch {
      // Its client has been told, or has broken it: there is nothing that could still be answered.
      socket.destroy();
    }
  };

  const server = httpsModule().createServer({
    // Who shows no certificate may have a token.
    ...secured(parts.certificate, clientCa),
    handshakeTimeout: HEADERS_MS,
    headersTimeout: HEADERS_MS,
    requestTimeout: 0,
    maxHeaderSize: 64 << 10,
  });
  server.maxConnections = MAX_CONNECTIONS;
  server.on("connection", (socket: Socket) => socket.setKeepAlive(true, KEEP_ALIVE_MS));
  server.on("request", (incoming, response) => {
    dropUnread(incoming, response);
    answer(incoming, response).catch((error: unknown) => {
      if (response.headersSent) {
        response.destroy();
        return;
      }
      const { status, text } = refusal(error);
      if (status === 500) log.error(`${incoming.method} failed`, error);
      send(response, "text/plain", text, status);
    });
  });
  server.on("upgrade", (incoming: IncomingMessage, socket: Duplex, head: Buffer) => {
    open.add(socket);
    socket.once("close", () => open.delete(socket));
    socket.on("error", () => socket.destroy());
    void upgrade(incoming, socket, head);
  });
  server.on("clientError", (_error: Error, socket: Duplex) => socket.destroy());
  // A handshake that fails is its client's affair.
  server.on("tlsClientError", (_error: Error, socket: Duplex) => socket.destroy());

  try {
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(address.port, address.host, () => {
        server.off("error", reject);
        resolve();
      });
    });
  } catch (error) {
    throw new VmsanError(
      {
        code: "ERR_NODE_LISTEN",
        message: `Cannot listen on ${address.host} port ${address.port} for the API server`,
        why: errnoOf(error) === "EADDRINUSE" ? "Something listens there." : messageOf(error),
        fix: "Choose another port (--port); the cluster learns it from the node.",
      },
      error,
    );
  }
  return {
    port: (server.address() as AddressInfo).port,
    setCertificate: (certificate) => server.setSecureContext(secured(certificate, clientCa)),
    close: async () => {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      for (const socket of open) socket.destroy();
      server.closeAllConnections();
      await closed;
    },
  };
}

/** @param ca empty: no certificate is worth anything; the authorities of the system must not stand in for it */
function secured(certificate: ServingCertificate, ca: string | Buffer): object {
  const clients = { ca, requestCert: true, rejectUnauthorized: false };
  return { ...certificate, ...(ca.length > 0 ? clients : {}), minVersion: "TLSv1.2" as const };
}

/** Agrees to a session, by whichever protocol the client asks for. @throws ERR_NODE_REQUEST */
function sessionOpener(incoming: IncomingMessage, wish: SessionWish): Opener<RemoteSession> {
  if (speaksChannels(incoming)) {
    return async (socket, head) => await acceptWebSocket(incoming, socket, head, wish);
  }
  const version = offeredOnSpdy(incoming).find((name) => SPDY_VERSIONS.includes(name));
  if (version === undefined) {
    throw badRequest(
      "It offers none of v5, v4 and channel.k8s.io by WebSocket, and no version of SPDY/3.1.",
    );
  }
  return async (socket, head) => await spdySession(acceptSpdy(socket, head, version), wish);
}

/** Agrees to a connection for ports. @throws ERR_NODE_REQUEST */
function forwardOpener(incoming: IncomingMessage): Opener<Duplex> {
  if (offersTunnel(incoming, PORT_FORWARD)) {
    return async (socket, head) => await acceptTunnel(incoming, socket, head, PORT_FORWARD);
  }
  if (!offeredOnSpdy(incoming).includes(PORT_FORWARD)) {
    throw badRequest(`It does not offer ${PORT_FORWARD} on SPDY/3.1.`);
  }
  return async (socket, head) => await Promise.resolve(acceptSpdy(socket, head, PORT_FORWARD));
}

function noRoute(incoming: IncomingMessage, path: string): VmsanError {
  return new VmsanError({
    code: "ERR_NODE_ROUTE_NOT_FOUND",
    message: `No route ${incoming.method} ${path.slice(0, 200)}`,
    why: "This node answers what docs/cluster.md lists.",
    fix: "Ask for one of those.",
  });
}

function send(response: ServerResponse, type: string, text: string, status = 200): void {
  response.writeHead(status, {
    "content-type": type,
    "content-length": Buffer.byteLength(text),
    "cache-control": "no-store",
    ...(status === 401 ? { "www-authenticate": "Bearer" } : {}),
  });
  response.end(text);
}

function sendJson(response: ServerResponse, value: unknown): void {
  send(response, "application/json", JSON.stringify(value));
}
