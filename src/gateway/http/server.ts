/** The server: connections, hosts, and which face a request is for. */
import { createServer } from "node:http";
import type { IncomingMessage, Server, ServerOptions, ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { Server as TlsServer } from "node:https";
import type { AddressInfo } from "node:net";
import type { Duplex } from "node:stream";
import { VmsanError, asVmsanError, errnoOf, messageOf } from "../../model/errors.ts";
import { statusOf } from "../../http/reply.ts";
import { bracketed } from "../../util/hosts/bracketed.ts";
import { dropUnread } from "../../util/flow/unread.ts";
import type { Log } from "../../util/log.ts";
import type { Hosts } from "./hosts.ts";
import { CertificateFiles } from "./listen.ts";
import type { ListenAddress, TlsFiles } from "./listen.ts";
import { chooseProtocol, divide, http2Side } from "./versions.ts";

/** One protocol that a gateway speaks. The first face that claims a request answers it. */
export interface Face {
  readonly name: string;
  /** Whether a request is this face's: by method, path and headers alone. */
  claims(request: IncomingMessage): boolean;
  /** Answer it. What it throws becomes {@link refuse}'s answer when nothing was sent yet. */
  handle(request: IncomingMessage, response: ServerResponse): Promise<void>;
  /** Whether it answers HTTP/2 where these headers lead; a face without it answers HTTP/1.1 alone. */
  speaksHttp2?(request: Pick<IncomingMessage, "headers">): boolean;
  /** Take over a connection that asks to switch protocols; faces without it refuse. */
  upgrade?(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void>;
}

/** What a server is made of. */
export interface ServerParts {
  /** With a path: a unix socket, which its owner alone can reach and where no host is checked. */
  address: ListenAddress | { path: string };
  tls?: TlsFiles;
  /** Certificates of the authorities, PEM, one of which has signed each client's own. */
  clientCa?: Buffer;
  hosts: Hosts;
  faces: readonly Face[];
  log: Log;
  /** Told of each answer: the face's name, the status, and milliseconds since the request. */
  answered?: (face: string | undefined, status: number, ms: number) => void;
  /** How long a client may take to send a request's headers, in milliseconds; default 20 s. */
  headersMs?: number;
}

/** A listening gateway. */
export interface ListeningGateway {
  /** `http` or `https`, address and the real port; or `unix://` and the path. */
  readonly url: string;
  /** 0 for a unix socket. */
  readonly port: number;
  /** Stop accepting and end what is open. */
  close(): Promise<void>;
}

const CERTIFICATE_POLL_MS = 2_000;
const HEADERS_MS = 20_000;

const SERVER_OPTIONS: ServerOptions = {
  maxHeaderSize: 32 << 10,
  // Bodies may be gigabytes, and streams last for days.
  requestTimeout: 0,
  keepAliveTimeout: 75_000,
  insecureHTTPParser: false,
  requireHostHeader: true,
};

/** How long a client has to take the answer to what is no request, in milliseconds. */
const LINGER_MS = 2_000;

/** Most connections at once. */
const MAX_CONNECTIONS = 20_000;

/** What is answered to what is no request, where it is not 400. */
const UNREAD: Record<string, string> = {
  ERR_HTTP_REQUEST_TIMEOUT: "408 Request Timeout",
  HPE_HEADER_OVERFLOW: "431 Request Header Fields Too Large",
};

/** Answer with an error in vmsan's own form. */
function refuse(response: ServerResponse, error: unknown): void {
  const known = asVmsanError(error, "The request failed");
  if (response.headersSent) {
    response.destroy();
    return;
  }
  const status = statusOf(known.code);
  const retry = known.details?.["retryAfterSeconds"];
  response.writeHead(status, {
    "content-type": "application/json",
    "cache-control": "no-store",
    ...(typeof retry === "number" ? { "retry-after": String(retry) } : {}),
    ...(status === 401 ? { "www-authenticate": "Bearer" } : {}),
  });
  response.end(JSON.stringify({ error: known.toJSON() }));
}

/** Answer a connection that asked to switch protocols with an error, and end it. */
function refuseUpgrade(socket: Duplex, error: unknown): void {
  const known = asVmsanError(error, "The request failed");
  const body = JSON.stringify({ error: known.toJSON() });
  socket.end(
    `HTTP/1.1 ${statusOf(known.code)} Refused\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n${body}`,
  );
  // It is nobody's any more, and its client may leave its end open for ever.
  setTimeout(() => socket.destroy(), LINGER_MS).unref();
}

/** What is answered where no face is. */
function noRoute(request: IncomingMessage): VmsanError {
  const path = (request.url ?? "").split("?", 1)[0] ?? "";
  return new VmsanError({
    code: "ERR_GATEWAY_ROUTE_NOT_FOUND",
    message: `No route ${request.method} ${path.slice(0, 200)}`,
    why: "No protocol of this gateway has it.",
    fix: "See /openapi.json, and docs/serve.md for the protocols.",
  });
}

/** What HTTP/2 is answered where only HTTP/1.1 is spoken: 421, for which clients open another connection. */
function notByHttp2(): VmsanError {
  return new VmsanError({
    code: "ERR_GATEWAY_HOST",
    message: "This is reached by HTTP/1.1 alone",
    why: "HTTP/2 is for ports of VMs (PORT-ID.DOMAIN).",
    fix: "Let the client use HTTP/1.1.",
  });
}

/** Listen. @throws ERR_GATEWAY_LISTEN, ERR_GATEWAY_TLS */
export async function listen(parts: ServerParts): Promise<ListeningGateway> {
  const { address, hosts, faces, log } = parts;
  const open = new Set<Duplex>();
  const faceOf = (request: IncomingMessage): Face => {
    if (!("path" in address)) hosts.check(request);
    const face = faces.find((candidate) => candidate.claims(request));
    // A client may take one connection for several of our names.
    if (request.httpVersionMajor === 2 && face?.speaksHttp2?.(request) !== true) throw notByHttp2();
    if (face === undefined) throw noRoute(request);
    return face;
  };
  /** Whether a host is one that is reached by HTTP/2 too. */
  const offersHttp2 = (host: string): boolean =>
    faces.some((face) => face.speaksHttp2?.({ headers: { host } }) === true);
  const onRequest = (request: IncomingMessage, response: ServerResponse): void => {
    const since = performance.now();
    let face: Face | undefined;
    dropUnread(request, response);
    response.once("close", () => {
      parts.answered?.(face?.name, response.statusCode, performance.now() - since);
    });
    void (async () => {
      try {
        face = faceOf(request);
        await face.handle(request, response);
      } catch (error) {
        const known = asVmsanError(error, "The request failed");
        if (statusOf(known.code) === 500) log.error(`${request.method} failed`, error);
        refuse(response, known);
      }
    })();
  };
  const onUpgrade = (request: IncomingMessage, socket: Duplex, head: Buffer): void => {
    open.add(socket);
    socket.once("close", () => open.delete(socket));
    // Whoever takes it over listens too; without this an early reset would end the process.
    socket.on("error", () => socket.destroy());
    void (async () => {
      try {
        const face = faceOf(request);
        if (face.upgrade === undefined) throw noRoute(request);
        await face.upgrade(request, socket, head);
      } catch (error) {
        refuseUpgrade(socket, error);
      }
    })();
  };
  const http2 = faces.some((face) => face.speaksHttp2 !== undefined)
    ? http2Side(onRequest)
    : undefined;
  const server = await makeServer(parts, http2 === undefined ? undefined : offersHttp2);
  if (http2 !== undefined)
    divide(server, parts.tls !== undefined, http2, parts.headersMs ?? HEADERS_MS);
  server.maxConnections = MAX_CONNECTIONS;
  server.on("request", onRequest);
  server.on("upgrade", onUpgrade);
  server.on("clientError", (error: Error, socket: Duplex) => {
    const code = errnoOf(error) ?? "";
    // Whose handshake failed can be told nothing.
    if (!socket.writable || !/^(?:HPE|ERR_HTTP)_/.test(code)) {
      socket.destroy();
      return;
    }
    socket.end(`HTTP/1.1 ${UNREAD[code] ?? "400 Bad Request"}\r\nconnection: close\r\n\r\n`);
    // It may leave its end open for ever.
    setTimeout(() => socket.destroy(), LINGER_MS).unref();
  });
  try {
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      const listening = (): void => {
        server.off("error", reject);
        resolve();
      };
      if (!("path" in address)) {
        server.listen(address.port, address.host, listening);
        return;
      }
      // Made in this very call, for nobody else from its first moment on.
      const before = process.umask(0o177);
      server.listen(address.path, listening);
      process.umask(before);
    });
  } catch (error) {
    const where = "path" in address ? address.path : `${address.host} port ${address.port}`;
    throw new VmsanError(
      {
        code: "ERR_GATEWAY_LISTEN",
        message: `Cannot listen on ${where}`,
        why:
          errnoOf(error) === "EADDRINUSE" ? "Something listens there already." : messageOf(error),
        fix: "Choose another address.",
      },
      error,
    );
  }
  const close = async (): Promise<void> => {
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    for (const socket of open) socket.destroy();
    http2?.close();
    server.closeAllConnections();
    await closed;
  };
  if ("path" in address) return { url: `unix://${address.path}`, port: 0, close };
  const { port } = server.address() as AddressInfo;
  return {
    url: `${parts.tls === undefined ? "http" : "https"}://${bracketed(address.host)}:${port}`,
    port,
    close,
  };
}

/** A server with or without TLS; a changed certificate is taken up by itself. */
async function makeServer(
  parts: ServerParts,
  offersHttp2?: (servername: string) => boolean,
): Promise<Server | TlsServer> {
  const { tls, log, headersMs = HEADERS_MS } = parts;
  // Headers come at once or not at all.
  const slow = { headersTimeout: headersMs, connectionsCheckingInterval: headersMs / 4 };
  const options = { ...SERVER_OPTIONS, ...slow };
  if (tls === undefined) return createServer(options);
  const files = new CertificateFiles(tls);
  const first = await files.changed();
  const { clientCa } = parts;
  const clients =
    clientCa === undefined ? {} : { ca: clientCa, requestCert: true, rejectUnauthorized: true };
  // As without TLS, where it is so by itself: a client that has sent all goes on receiving.
  const half = { allowHalfOpen: true, handshakeTimeout: headersMs };
  const server = createTlsServer({
    ...options,
    ...half,
    ...first,
    ...clients,
    ...(offersHttp2 === undefined ? {} : { ALPNCallback: chooseProtocol(offersHttp2) }),
    minVersion: "TLSv1.2",
  });
  const poll = setInterval(() => {
    files
      .changed()
      .then((certificate) => {
        if (certificate === undefined) return;
        server.setSecureContext({ ...certificate, ...clients, minVersion: "TLSv1.2" });
        log.info("took up a new certificate");
      })
      .catch((error: unknown) => log.error("kept the old certificate", error));
  }, CERTIFICATE_POLL_MS);
  poll.unref();
  server.once("close", () => clearInterval(poll));
  return server;
}
