/**
 * Puts secrets into what one VM sends to the servers that they are for, and takes them out of what
 * comes back: an HTTP/1.1 proxy whose client is the guest, with a certificate of the VM's own
 * authority, and which asks the server by its own verified connection.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { TLSSocket } from "node:tls";
import { messageOf } from "../../model/errors.ts";
import type { SecretDomain, VmSecrets } from "../../model/secret.ts";
import type { Decision } from "../log.ts";
import { isFor, isSecretName, schemesOn } from "../policy/secrets.ts";
import { Certificates } from "./authority.ts";
import { Room } from "./bodies.ts";
import { Exchange } from "./exchange.ts";
import type { Held } from "./forms.ts";
import { takingOut } from "./forms.ts";
import { agentFor } from "./upstream.ts";
import { joinWebSocket } from "./websocket.ts";
import type { Passage } from "./passage.ts";

/** Longest head of a request or an answer, in bytes. */
const maxHead = 65_536;

/** Most requests of one connection that wait for their answers: clients that send ahead send a few. */
const maxAhead = 64;

/** Milliseconds that a guest has to agree on TLS. */
const handshakeMs = 60_000;

/** What a broker works with. */
export interface BrokerOptions {
  secrets: VmSecrets;
  /** Path of the `vmsan-nethelper` binary. */
  helper: string;
  log: (decision: Decision) => void;
}

/** One VM's broker. */
export class Broker {
  private readonly options: BrokerOptions;
  private readonly certificates: Certificates;
  private readonly secrets: readonly Held[];
  private readonly room = new Room();
  private readonly server: Server;
  private readonly passages = new WeakMap<Duplex, Passage>();
  private readonly takeOut: Passage["takeOut"];

  constructor(options: BrokerOptions) {
    this.options = options;
    const { rules, material } = options.secrets;
    this.secrets = rules.flatMap((rule) => {
      const value = material.values[rule.name];
      return value === undefined ? [] : [{ ...rule, value }];
    });
    this.takeOut = {
      exact: takingOut(this.secrets, false),
      sameLength: takingOut(this.secrets, true),
    };
    this.certificates = new Certificates(options.helper, material.authority);
    this.server = this.makeServer();
  }

  /** Whether a name is one that secrets are for. */
  hasName(name: string): boolean {
    return isSecretName(this.secrets, name);
  }

  /** Whether connections to a server are this broker's. */
  serves(to: SecretDomain): boolean {
    return this.secrets.some((secret) => isFor(secret, to));
  }

  /** Protocols by which secrets are sent to a port. */
  schemesOn(port: number): Set<string> {
    return schemesOn(this.secrets, port);
  }

  /**
   * Take a connection over. What the guest has sent so far has been put back into it.
   * @param address where the guest wants to go, which leads to that name
   * @returns ends it from outside
   */
  take(guest: Socket, to: SecretDomain, address: string): () => void {
    const { material } = this.options.secrets;
    const agent = agentFor(to, address, material.trusted);
    const passage: Passage = {
      to,
      address,
      agent,
      trusted: material.trusted,
      secrets: this.secrets.filter((secret) => isFor(secret, to)),
      takeOut: this.takeOut,
      room: this.room,
      open: new Set(),
      denied: (rule) => this.note("denied", to, address, rule),
    };
    guest.on("close", () => {
      // Also those that have not had their turn, of which nothing else tells.
      for (const exchange of passage.open) exchange.end();
      // It opens one more for what waited behind them.
      agent.maxFreeSockets = 0;
      agent.destroy();
    });
    this.note("allowed", to, address, "secret");
    if (to.scheme === "http") {
      this.speak(guest, passage);
      guest.resume();
      return () => guest.destroy();
    }
    let close = (): void => void guest.destroy();
    this.certificates.of(to.host).then(
      (secureContext) => {
        if (guest.destroyed) return;
        // HTTP/1.1 alone: a client that insists on another protocol is told so by TLS.
        const options = { isServer: true, secureContext, ALPNProtocols: ["http/1.1"] };
        const secure = new TLSSocket(guest, options);
        close = () => void secure.destroy();
        const timer = setTimeout(close, handshakeMs);
        secure.on("close", () => clearTimeout(timer));
        // A guest that does not trust the certificate, or resets its connection.
        secure.on("error", () => secure.destroy());
        secure.on("secure", () => {
          clearTimeout(timer);
          this.speak(secure, passage);
        });
      },
      (error: unknown) => {
        passage.denied(`secret-certificate: ${messageOf(error)}`);
        guest.destroy();
      },
    );
    return () => close();
  }

  /** Serve HTTP on a connection. */
  private speak(socket: Duplex, passage: Passage): void {
    this.passages.set(socket, passage);
    this.server.emit("connection", socket);
  }

  private note(
    verdict: Decision["verdict"],
    { host, port }: SecretDomain,
    address: string,
    rule: string,
  ): void {
    this.options.log({ verdict, protocol: "tcp", name: host, address, port, rule });
  }

  /** The parser of what guests send; it never listens. */
  private makeServer(): Server {
    const server = createServer({
      maxHeaderSize: maxHead,
      insecureHTTPParser: false,
      keepAliveTimeout: 120_000,
      // An offer of another protocol that nobody takes up is a plain request.
      shouldUpgradeCallback: (request) => request.headers.upgrade?.toLowerCase() === "websocket",
    });
    const serve = (request: IncomingMessage, response: ServerResponse): void => {
      const passage = this.passages.get(request.socket);
      if (passage === undefined) {
        response.destroy();
        return;
      }
      if (passage.open.size >= maxAhead) {
        passage.denied("secret-too-many-requests");
        request.socket.destroy();
        return;
      }
      new Exchange(passage, request, response).run();
    };
    server.on("request", serve);
    // The client waits for nothing then: the server's own answer to the whole request counts.
    server.on("checkContinue", (request: IncomingMessage, response: ServerResponse) => {
      response.writeContinue();
      serve(request, response);
    });
    server.on("checkExpectation", serve);
    server.on("connect", (request: IncomingMessage, socket: Duplex) => {
      this.passages.get(request.socket)?.denied("secret-method");
      sayAndEnd(socket, "405 Method Not Allowed");
    });
    server.on("upgrade", (request: IncomingMessage, socket: Duplex, head: Buffer) => {
      const passage = this.passages.get(request.socket);
      if (passage === undefined) socket.destroy();
      // Node.js before 24.9 does not ask which offers are taken up.
      else if (request.headers.upgrade?.toLowerCase() !== "websocket") {
        passage.denied("secret-upgrade");
        sayAndEnd(socket, "501 Not Implemented");
      } else joinWebSocket(passage, request, socket, head);
    });
    server.on("clientError", (error: NodeJS.ErrnoException, socket: Duplex) => {
      if (!socket.writable || error.code === "ECONNRESET") {
        socket.destroy();
        return;
      }
      this.passages.get(socket)?.denied("secret-malformed");
      const long = error.code === "HPE_HEADER_OVERFLOW";
      sayAndEnd(socket, long ? "431 Request Header Fields Too Large" : "400 Bad Request");
    });
    return server;
  }
}

/** End a connection with an answer that has no body. */
function sayAndEnd(socket: Duplex, status: string): void {
  socket.on("error", () => socket.destroy());
  socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`, () =>
    socket.destroy(),
  );
}
